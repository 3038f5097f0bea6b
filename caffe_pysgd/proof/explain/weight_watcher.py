"""An observer of one weight: what every stage of its update leaves."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import numpy as np

from caffe_pysgd.update import Observer, Parameter, Stage, Updater

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
        norms: the norms that the rule took, in order.
    """

    def __init__(self, updater: Updater, parameter: int, element: int, iteration: int) -> None:
        self.values: Dict[str, np.float32] = {}
        self.norms: List[np.float32] = []
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
        if stage is Stage.REGULARIZED:
            self._listen(parameter)
        if stage is Stage.UPDATE:
            del parameter.norms
            self.values.update(self._before)
            for slot, values in self._updater.states[self._number].items():
                self.values[f"new {slot}"] = F(values[self._element])

    def _listen(self, parameter: Parameter) -> None:
        """Hear of the norms that the rule takes."""

        def norms(*arrays: np.ndarray) -> Tuple[np.float32, ...]:
            taken = Parameter.norms(parameter, *arrays)
            self.norms += taken
            return taken

        parameter.norms = norms  # type: ignore[method-assign]
