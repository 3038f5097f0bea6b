"""The rate of each parameter, where some have a schedule of their own."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.update import Treatment, Updater
from caffe_pysgd.update.schedule import Schedule, schedule_of


class LocalRates:
    """The local rates of an updater's parameters.

    The updater tells its observers the global rate. Where a parameter has a policy of its own, the
    rate is computed here once more.
    """

    def __init__(self, updater: Updater) -> None:
        self._updater = updater
        self._treatments: Optional[Sequence[Treatment]] = None
        self._own: List[Optional[Schedule]] = []

    def rate(self, parameter: int, iteration: int, rate: np.float32) -> float:
        """Return what a parameter's update was multiplied by, lr_mult included.

        Args:
            parameter: its number in Caffe's order.
            iteration: whose rate is asked for.
            rate: the global one.
        """
        if self._treatments is not self._updater.treatments:  # hyper-parameters were changed
            self._adopt(iteration)
        schedule = self._own[parameter]
        if schedule is not None:
            rate = schedule.rate(iteration)
        return float(rate * np.float32(self._updater.parameters[parameter].lr_mult))

    def _adopt(self, iteration: int) -> None:
        self._treatments = self._updater.treatments
        common = schedule_of(self._updater.h)
        schedules: Dict[Tuple[Any, ...], Schedule] = {}
        self._own = []
        for treatment in self._treatments:
            key = schedule_of(treatment.h)
            if key != common and key not in schedules:
                schedules[key] = Schedule(treatment.h)
                schedules[key].catch_up(iteration)
            self._own.append(schedules.get(key))
