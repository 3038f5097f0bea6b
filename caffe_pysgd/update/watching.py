"""The observers of an update, at one iteration."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.observers import Observer
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.stages import Stage
from caffe_pysgd.update.statistics import Statistics


class Watching:
    """The observers at one iteration."""

    def __init__(
        self, observers: Sequence[Observer], iteration: int, rate: np.float32, kernels: Kernels
    ) -> None:
        self._observers, self._iteration, self._rate = observers, iteration, rate
        self._kernels = kernels
        self._seeing = [observer for observer in observers if observer.due(iteration)]
        self._measuring = [observer for observer in observers if observer.figures_due(iteration)]
        self._refused = False
        self.seeing, self.measuring = bool(self._seeing), bool(self._measuring)
        self.figures: Dict[str, Dict[str, Statistics]] = {}

    def begin(self, parameters: Sequence[Parameter]) -> bool:
        """Tell all observers that an update begins; return whether it shall be done."""
        willing = [o.begin(self._iteration, self._rate, parameters) for o in self._observers]
        self._refused = not all(willing)
        if self.seeing and not self._refused:
            for p in parameters:
                self._tell(p, Stage.GRADIENT, p.diff)
        return not self._refused

    def take(self, p: Parameter, stage: Stage, array: Floats) -> None:
        """Show what a stage left, and take the figures that are wanted of it."""
        self._tell(p, stage, array)
        self.measure(p, stage, array)

    def measure(self, p: Parameter, stage: Stage, array: Floats) -> None:
        """Take the figures that are wanted of what a stage left."""
        if not self.measuring:
            return
        figures = self.figures.setdefault(p.name, {})
        if stage is Stage.UPDATE:
            for slot, values in p.state.items():
                figures[slot] = self._kernels.statistics(values)
        if stage in (Stage.GRADIENT, Stage.REGULARIZED, Stage.UPDATE, Stage.DATA):
            figures[stage.value] = self._kernels.statistics(array)

    def _tell(self, p: Parameter, stage: Stage, array: Floats) -> None:
        for observer in self._seeing:
            observer.observe(self._iteration, self._rate, p, stage, array)

    def measured(self, parameters: Sequence[Parameter]) -> None:
        """Tell the figures of the parameters that were updated."""
        for observer in self._measuring:
            for p in parameters:
                observer.measure(self._iteration, self._rate, p, self.figures[p.name])

    def end(self) -> None:
        """Tell who watched that the update is over."""
        for observer in self._observers:
            if self._refused or observer in self._seeing or observer in self._measuring:
                observer.end(self._iteration, self._rate)
