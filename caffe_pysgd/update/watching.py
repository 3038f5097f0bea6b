"""The observers of an update, at one iteration."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np

from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.observers import Observer, Stage
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.statistics import Statistics


class Measured:
    """The figures of one parameter, taken as its update goes along, if anybody wants them."""

    def __init__(self, wanted: bool, kernels: Kernels) -> None:
        self.figures: Dict[str, Statistics] = {}
        self._wanted, self._kernels = wanted, kernels

    def take(self, name: str, array: np.ndarray) -> None:
        if self._wanted:
            self.figures[name] = self._kernels.statistics(array)


class Watching:
    """The observers at one iteration."""

    def __init__(self, observers: Sequence[Observer], iteration: int, rate: np.float32) -> None:
        self._observers, self._iteration, self._rate = observers, iteration, rate
        self._seeing = [observer for observer in observers if observer.due(iteration)]
        self._measuring = [observer for observer in observers if observer.figures_due(iteration)]
        self._refused = False
        self.seeing, self.measuring = bool(self._seeing), bool(self._measuring)

    def begin(self, parameters: Sequence[Parameter]) -> bool:
        willing = [o.begin(self._iteration, self._rate, parameters) for o in self._observers]
        self._refused = not all(willing)
        return not self._refused

    def tell(self, parameter: Parameter, stage: Stage, array: np.ndarray) -> None:
        for observer in self._seeing:
            observer.observe(self._iteration, self._rate, parameter, stage, array)

    def measure(self, parameter: Parameter, figures: Dict[str, Statistics]) -> None:
        for observer in self._measuring:
            observer.measure(self._iteration, self._rate, parameter, figures)

    def end(self) -> None:
        for observer in self._observers:
            if self._refused or observer in self._seeing or observer in self._measuring:
                observer.end(self._iteration, self._rate)
