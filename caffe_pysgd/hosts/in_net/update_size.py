"""The figures that an injected net shows in Caffe's log."""

from __future__ import annotations

from typing import AbstractSet, Mapping

import numpy as np

from caffe_pysgd.update import Observer, Parameter, Statistics


class UpdateFigures(Observer):
    """The size of the update, for the iterations that Caffe displays.

    BatchNorm's running statistics are no weights, often far greater, and left out.

    Attributes:
        l2: the L2 norm of the update over all parameters.
        ratio: the same divided by the norm of the new weights.
    """

    def __init__(self, display: int, statistics: AbstractSet[str]) -> None:
        self.display, self._statistics = display, statistics
        self.l2 = self.ratio = 0.0
        self._update_sumsq = self._data_sumsq = 0.0

    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return self.display > 0 and iteration % self.display == 0

    def measure(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        figures: Mapping[str, Statistics],
    ) -> None:
        if parameter.name in self._statistics:
            return
        self._update_sumsq += figures["update"].l2 ** 2
        self._data_sumsq += figures["data"].l2 ** 2

    def end(self, iteration: int, rate: np.float32) -> None:
        self.l2 = self._update_sumsq**0.5
        self.ratio = self.l2 / self._data_sumsq**0.5 if self._data_sumsq else 0.0
        self._update_sumsq = self._data_sumsq = 0.0
