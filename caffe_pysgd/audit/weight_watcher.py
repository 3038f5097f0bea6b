"""An observer of one weight: what every stage of its update leaves."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np

from caffe_pysgd.update import Observer, Parameter, Stage, Updater
from caffe_pysgd.update.bias_correction import correction

F = np.float32

_LINES = {Stage.DATA: "new weight"}


class WeightWatcher(Observer):
    """Watches one element of one parameter at one iteration.

    Args:
        updater: whose update; its slots are looked at, too.
        parameter: the parameter's number in Caffe's order.
        element: the element's place among all values of the parameter.
        iteration: when.

    Attributes:
        values: what there was, by the names that an explanation gives its lines; empty until the
            iteration has come, and for a parameter that is frozen then.
        norms: for LARS and LAMB the norms that the trust ratio is made of.
    """

    def __init__(self, updater: Updater, parameter: int, element: int, iteration: int) -> None:
        self.values: Dict[str, np.float32] = {}
        self.norms: Dict[str, np.float32] = {}
        self._updater, self._number = updater, parameter
        self._element, self._iteration = element, iteration
        self._before: Dict[str, np.float32] = {}

    @property
    def _watched(self) -> Parameter:
        return self._updater.parameters[self._number]

    def due(self, iteration: int) -> bool:
        return iteration == self._iteration

    def begin(self, iteration: int, rate: np.float32, parameters: Sequence[Parameter]) -> bool:
        if self.due(iteration):
            self._before = {
                slot: F(array[self._element])
                for slot, array in self._updater.states[self._number].items()
            }
            self._before["weight"] = F(self._watched.data[self._element])
        return True

    def observe(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        stage: Stage,
        array: np.ndarray,
    ) -> None:
        if parameter is not self._watched:
            return
        self.values[_LINES.get(stage, stage.value)] = F(array[self._element])
        if stage is Stage.REGULARIZED and self._rule == "lars":
            self._take_norms(parameter.data, parameter.diff + self._decay * parameter.data)
        if stage is Stage.UPDATE:
            self.values.update(self._before)
            for slot, values in self._updater.states[self._number].items():
                self.values[f"new {slot}"] = F(values[self._element])
            if self._rule == "lamb":
                self._take_norms(parameter.data, self._step_of_lamb(parameter))

    @property
    def _rule(self) -> str:
        return self._updater.treatments[self._number].rule.name

    @property
    def _decay(self) -> np.float32:
        h = self._updater.treatments[self._number].h
        return h.weight_decay * F(self._watched.decay_mult)

    def _step_of_lamb(self, parameter: Parameter) -> np.ndarray:
        h, state = self._updater.treatments[self._number].h, self._updater.states[self._number]
        t = self._iteration + 1
        m = state["m"] / correction(h.momentum, t)
        v = state["v"] / correction(h.momentum2, t)
        step: np.ndarray = m / (np.sqrt(v) + h.delta) + self._decay * parameter.data
        return step

    def _take_norms(self, data: np.ndarray, step: np.ndarray) -> None:
        self.norms["weight_norm"] = F(np.linalg.norm(data))
        self.norms["step_norm"] = F(np.linalg.norm(step))
