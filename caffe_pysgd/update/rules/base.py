"""What a rule is: an equation with memory."""

from __future__ import annotations

from typing import Optional, Tuple

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.parameter import Parameter

ParameterStep = Parameter
"""What a rule's ``update`` is given."""


class UpdateRule:
    """Base of all rules. A rule of your own takes a few lines::

        class Sign(caffe_pysgd.UpdateRule):
            def update(self, p):
                return p.rate * np.sign(p.gradient)

    Attributes:
        name: how YAML and messages call it; a user's own goes by ``module:Class``.
        slots: the names of the arrays that the rule keeps for each parameter, each as long as the
            parameter and zero before the first update. They live in the snapshots.
        squares: the slots that are sums or means of squares, so that no value is ever negative.
        decoupled_decay: whether the rule applies the weight decay itself, so that none is added to
            the gradient.
    """

    name: str = ""
    slots: Tuple[str, ...] = ()
    squares: Tuple[str, ...] = ()
    decoupled_decay = False

    def update(self, p: ParameterStep) -> Floats:
        """Return the update value, which is then subtracted from the weights.

        It has the gradient's shape and type. It may be an array of the state, or the gradient's
        own, changed in place.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update(self, p)")

    @classmethod
    def check(cls, h: HyperParameters) -> Optional[str]:
        """Refuse hyper-parameters that the rule cannot be computed with; all are fine by default.

        Raise a ``SettingError(field, got, expected)``, or return a sentence.
        """
        return None
