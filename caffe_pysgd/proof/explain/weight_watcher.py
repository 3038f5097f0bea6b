"""An observer of one weight: what every stage of its update leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from caffe_pysgd.proof.explain.derivation import takes_norms
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
        norms: the norms that the rule took, in order; whether each is that of the weights.
    """

    def __init__(self, updater: Updater, parameter: int, element: int, iteration: int) -> None:
        self.values: Dict[str, np.float32] = {}
        self.norms: List[Tuple[bool, np.float32]] = []
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
            self.norms = self._norms(parameter, array)
        if stage is Stage.UPDATE:
            self.values.update(self._before)
            for slot, values in self._updater.states[self._number].items():
                self.values[f"new {slot}"] = F(values[self._element])

    def _norms(self, parameter: Parameter, gradient: np.ndarray) -> List[Tuple[bool, np.float32]]:
        """Return the norms that the rule is about to take, by letting it work on copies.

        A rule that keeps something in itself is left alone.
        """
        rule = parameter.rule
        if not takes_norms(rule, parameter.h, self._iteration):
            return []
        taken: List[Tuple[bool, np.float32]] = []

        class Watched(np.ndarray):
            def __array_function__(self, function: Any, types: Any, args: Any, more: Any) -> Any:
                result = super().__array_function__(function, types, args, more)
                if function is np.linalg.norm:
                    taken.append((args[0] is data, F(result)))
                return result

        data = parameter.data.copy().view(Watched)
        state = {slot: array.copy().view(Watched) for slot, array in parameter.state.items()}
        rule.update(replace(parameter, data=data, diff=gradient.copy().view(Watched), state=state))
        return taken
