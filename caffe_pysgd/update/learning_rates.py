"""The rates of all parameters, update by update."""

from __future__ import annotations

from operator import attrgetter
from typing import Sequence

import numpy as np

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.policies import Schedule, schedule_of
from caffe_pysgd.update.policies.plateau import PlateauState

F = np.float32

_LR_MULT = attrgetter("lr_mult")


class Rates:
    """Gives every parameter its schedule, and its local rate before each update.

    A net of many small parameters spends more time here than on arithmetic, so what has not changed
    is left as it is.

    Args:
        parameters: their hyper-parameters say which have schedules of their own.
        h: the common hyper-parameters.

    Attributes:
        schedule: the common one.
        local: the local rates of this update.
    """

    def __init__(self, parameters: Sequence[Parameter], h: HyperParameters) -> None:
        self.schedule = Schedule(h)
        schedules = {schedule_of(h): self.schedule}
        for p in parameters:
            p.schedule = schedules.setdefault(schedule_of(p.h), Schedule(p.h))
        self._schedules, self._parameters = list(schedules.values()), parameters
        self._rows = {id(p): row for row, p in enumerate(parameters)}
        self._known = -1, b""  # for which changes, and which rates, the local ones are
        self.local = np.zeros(0, F)

    def resume(self, iteration: int, current_step: int, plateau: PlateauState) -> None:
        """Go on from a solver's state."""
        for schedule in self._schedules:
            schedule.catch_up(iteration)
            if schedule is self.schedule or schedule.h.lr_policy == "plateau":
                schedule.go_on_from(current_step, plateau)

    def foresee(self, iteration: int, loss: np.float32) -> np.float32:
        """Return the common rate, and leave all as it is."""
        before = self.schedule.current_step, self.schedule.plateau
        rate = self.schedule.rate(iteration, loss)
        self.schedule.go_on_from(*before)
        return rate

    def bring_up_to_date(self, iteration: int, loss: np.float32) -> np.float32:
        """Give every parameter the iteration and its local rate; return the common rate."""
        values = np.array([schedule.advance(iteration, loss) for schedule in self._schedules], F)
        known = Parameter.changes, values.tobytes()
        if known != self._known:
            self._known = known
            self.local = np.fromiter(map(_LR_MULT, self._parameters), F)
            if len(values) == 1:
                self.local *= values[0]
            else:
                self.local *= np.fromiter([p.schedule.value for p in self._parameters], F)
        return self.schedule.value

    def of(self, parameters: Sequence[Parameter]) -> np.ndarray:
        """Return the local rates of some of the parameters."""
        if parameters is self._parameters:
            return self.local
        return self.local[[self._rows[id(p)] for p in parameters]]
