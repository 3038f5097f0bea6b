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
    """

    def __init__(self, parameters: Sequence[Parameter], h: HyperParameters) -> None:
        self.schedule = Schedule(h)
        schedules = {schedule_of(h): self.schedule}
        for p in parameters:
            p.schedule = schedules.setdefault(schedule_of(p.h), Schedule(p.h))
        self._schedules, self._parameters = list(schedules.values()), parameters
        self._known = b""

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
        rates = {schedule: schedule.rate(iteration, loss) for schedule in self._schedules}
        local = np.fromiter(map(_LR_MULT, self._parameters), F)
        if len(rates) == 1:
            local *= rates[self.schedule]
        else:
            local *= np.fromiter([rates[p.schedule] for p in self._parameters], F)
        now = local.tobytes()
        if now != self._known:
            self._known = now
            for p, rate in zip(self._parameters, local):
                p.rate = rate
        for p in self._parameters:
            p.iteration = iteration
        return rates[self.schedule]
