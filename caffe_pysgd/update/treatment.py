"""How one parameter is treated: which rule, which hyper-parameters, and when it is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.rules.base import UpdateRule


@dataclass(frozen=True)
class Treatment:
    """What applies to one parameter.

    Attributes:
        rule: turns its gradient into its update value.
        h: its hyper-parameters; ``clip_gradients`` and ``iter_size`` are global and not read here.
        freeze_until: it is not updated before this iteration.
        freeze_from: it is not updated from this iteration on; None for never.
    """

    rule: UpdateRule
    h: HyperParameters
    freeze_until: int = 0
    freeze_from: Optional[int] = None

    @property
    def ever_frozen(self) -> bool:
        """Whether there is an iteration at which the parameter stays as it is."""
        return self.freeze_until > 0 or self.freeze_from is not None

    def frozen(self, iteration: int) -> bool:
        """Return whether the parameter stays as it is at this iteration."""
        after = self.freeze_from is not None and iteration >= self.freeze_from
        return iteration < self.freeze_until or after
