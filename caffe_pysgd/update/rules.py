"""The update rules, simplest first: how a gradient becomes an update value.

A rule is an equation with memory. It is given one parameter's gradient ``g`` (clipped, normalized,
regularized), its state slots, and the local rate ``r = rate * lr_mult``, and turns ``g`` in place
into the update value that is then subtracted from the weights. Rules are written with the
:mod:`kernels <caffe_pysgd.update.kernels>` in the native solver's order of operations: that order
is what makes the bits.
"""

from __future__ import annotations

from typing import Dict, Mapping, Tuple, Type

import numpy as np

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels

State = Mapping[str, np.ndarray]


class UpdateRule:
    """Base of all rules.

    Attributes:
        slots: the names of the arrays that the rule keeps for each parameter, each as long as the
            parameter and zero before the first update, in the order of Caffe's ``.solverstate``.
    """

    slots: Tuple[str, ...] = ()

    def __init__(self, h: HyperParameters) -> None:
        self.h = h

    def compute_update_value(self, g: np.ndarray, state: State, r: np.float32, k: Kernels) -> None:
        """Turn the gradient ``g`` in place into the update value.

        Args:
            g: float32, flat: the gradient going in, the update value coming out.
            state: the parameter's slots by name, float32, flat; changed in place.
            r: the local rate.
            k: the kernels to compute with.
        """
        raise TypeError(f"{type(self).__name__} does not define compute_update_value")


class SGD(UpdateRule):
    """Stochastic gradient descent with momentum.

    ``history = r g + momentum history``, and the history is the update value: the rate is inside
    the history, so that a change of the rate reaches the update only as fast as the momentum lets
    it. Source: ``SGDSolver::ComputeUpdateValue`` in ``src/caffe/solvers/sgd_solver.cpp``.
    """

    slots = ("history",)

    def compute_update_value(self, g: np.ndarray, state: State, r: np.float32, k: Kernels) -> None:
        history = state["history"]
        k.axpby(r, g, self.h.momentum, history)
        k.copy(history, g)


RULES: Dict[str, Type[UpdateRule]] = {rule.__name__.lower(): rule for rule in (SGD,)}
