"""One learnable parameter, its state, and what applies to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Dict, MutableMapping, Optional, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.display import counted, html_table
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.statistics import norm

if TYPE_CHECKING:
    from caffe_pysgd.update.kernels import Kernels
    from caffe_pysgd.update.policies import Schedule

F = np.float32


class State(Dict[str, Floats]):
    """A rule's slots by name; ``Parameter.changes`` counts when another array takes one."""

    def __setitem__(self, slot: str, array: Floats) -> None:
        if self.get(slot) is not array:
            Parameter.changes += 1
        super().__setitem__(slot, array)

    update = MutableMapping.update  # by setting items
    setdefault = MutableMapping.setdefault

    def __ior__(self, other: Any) -> State:  # type: ignore[override,misc]
        self.update(other)
        return self


@dataclass(eq=False, repr=False)
class Parameter:
    """A learnable parameter: a blob with data and diff, and all that a rule may use.

    Its arrays are float32, flat, C-contiguous, and changed in place.

    Attributes:
        name: its display name, ``layer/index``: ``conv1/0`` is the weights, ``conv1/1`` the bias.
        data: the weights; a rule sees them as they were before the update.
        diff: the accumulated gradient, same shape; the update turns it into the update value.
        lr_mult: multiplies the global rate (``param { lr_mult }``).
        decay_mult: multiplies the global weight decay (``param { decay_mult }``).
        rule: turns the gradient into the update value; an updater's own if not given.
        h: the hyper-parameters in force; an updater's own if not given. ``clip_gradients`` and
            ``iter_size`` are common to all parameters and not read here.
        freeze_until: it is not updated before this iteration.
        freeze_from: it is not updated from this iteration on; None for never.
        state: the rule's slots by name; a rule changes them in place.

    An updater brings these up to date for every update:

    Attributes:
        schedule: has the global rate, and the iteration.
        decay: the local decay, ``weight_decay * decay_mult``.
        kernels: vector operations, for a rule that must have exact bits.
        trusted: whether what a user's rule returns is used without a look.
    """

    name: str
    data: Floats
    diff: Floats
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    rule: Any = None
    h: HyperParameters = None  # type: ignore[assignment]
    freeze_until: int = 0
    freeze_from: Optional[int] = None
    state: Dict[str, Floats] = field(default_factory=dict)
    schedule: Schedule = None  # type: ignore[assignment]
    decay: np.float32 = F(0)
    kernels: Kernels = None  # type: ignore[assignment]
    trusted: bool = False

    changes: ClassVar[int] = 0
    """How often an array, or lr_mult, of any parameter became another: what was known is not then.

    A net of many small parameters would spend more time on looking at each than on arithmetic.
    """

    def __repr__(self) -> str:
        norms = ", ".join(f"|{name}| {value}" for name, value in self._norms().items())
        return f"<Parameter {self.name}: {counted(self.count, 'value')}, {norms}>"

    def _repr_html_(self) -> str:
        return html_table(repr(self), ("array", "L2 norm"), self._norms().items())

    def _norms(self) -> Dict[str, str]:
        arrays = {"data": self.data, "diff": self.diff, **self.state}
        return {name: f"{norm(array):.4g}" for name, array in arrays.items()}

    @property
    def rate(self) -> np.float32:
        """The local rate, the global one times ``lr_mult``."""
        return F(self.lr_mult) * self.schedule.value

    @property
    def iteration(self) -> int:
        """The iteration of this update, counted from 0, as Caffe does."""
        return self.schedule.iteration

    @property
    def gradient(self) -> Floats:
        """What a rule sees: clipped, normalized and, unless the rule decays itself, regularized."""
        return self.diff

    def norms(self, *arrays: Floats) -> Tuple[np.float32, ...]:
        """Return the L2 norms of arrays as long as the parameter; a fused pass takes them at once.

        They are added up in float64, in the order of ``statistics.py``, and rounded once.
        """
        return tuple(map(norm, arrays))

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self.data.size)

    @property
    def ever_frozen(self) -> bool:
        """Whether there is an iteration at which it stays as it is."""
        return self.freeze_until > 0 or self.freeze_from is not None

    def frozen(self, iteration: int) -> bool:
        """Return whether it stays as it is at this iteration."""
        after = self.freeze_from is not None and iteration >= self.freeze_from
        return iteration < self.freeze_until or after


def _noticed(attribute: str) -> property:
    """Return an attribute that is counted when it becomes something else."""
    hidden = f"_{attribute}"

    def become(p: Parameter, value: Any) -> None:
        p.__dict__[hidden] = State(value) if attribute == "state" else value
        Parameter.changes += 1

    return property(attrgetter(hidden), become)


for _attribute in ("data", "diff", "state", "lr_mult"):
    setattr(Parameter, _attribute, _noticed(_attribute))
