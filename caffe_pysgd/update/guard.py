"""The guard against gradients that are not finite: it finds them, and stops or passes over."""

from __future__ import annotations

from typing import Callable, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.update.observers import Observer
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.stages import Clipping
from caffe_pysgd.update.statistics import Statistics


class NonFinite(NamedTuple):
    """A parameter, and how many of its gradient's values are infinite or not a number."""

    name: str
    values: int
    size: int


Told = Callable[[int, Sequence[NonFinite], bool], None]


class Guard(Observer):
    """Looks at every gradient.

    Args:
        reaction: ``stop`` ends the training with a UserError; ``skip`` leaves weights and history
            as they are and goes on with the next batch; ``ignore`` goes on as Caffe does.
        measured: says at which iterations somebody takes the gradients' figures, and they count
            what is not finite on the way. At the others one pass over the gradients looks before
            the update, and then the weights are saved from it.
        told: is told iteration, what was found, and whether the update was skipped.
    """

    def __init__(
        self,
        reaction: str,
        measured: Callable[[int], bool] = lambda iteration: False,
        told: Optional[Told] = None,
    ) -> None:
        self._reaction, self._measured, self._told = reaction, measured, told
        self._found: List[NonFinite] = []
        self._stop = ""  # why the training shall stop

    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return self._measured(iteration) and self._reaction != "skip"

    def begin(self, iteration: int, rate: np.float32, parameters: Sequence[Parameter]) -> bool:
        self._found, self._stop = [], ""
        if self.figures_due(iteration):
            return True
        found = find_nonfinite(parameters)
        self._hear(iteration, found)
        return not found or self._reaction == "ignore"

    def measure(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        figures: Mapping[str, Statistics],
    ) -> None:
        values = figures["gradient"].nonfinite
        if values:
            self._found.append(NonFinite(parameter.name, values, parameter.count))

    def end(self, iteration: int, rate: np.float32) -> None:
        self._hear(iteration, self._found)

    def _hear(self, iteration: int, found: Sequence[NonFinite]) -> None:
        if found and self._told:
            self._told(iteration, found, self._reaction == "skip")
        if found and self._reaction == "stop":
            self._stop = describe(iteration, found)

    def updated(self, iteration: int, rate: np.float32, clipping: Optional[Clipping]) -> None:
        if self._stop:
            raise UserError(
                f"{self._stop}; training stops here (update.on_nonfinite: skip or ignore goes on)"
            )


def find_nonfinite(parameters: Sequence[Parameter]) -> List[NonFinite]:
    """Return the parameters whose gradients are not finite."""
    found = []
    for parameter in parameters:
        # One pass without a temporary array; a sum that overflows is looked at again.
        if not np.isfinite(np.dot(parameter.diff, parameter.diff)):
            values = parameter.count - int(np.count_nonzero(np.isfinite(parameter.diff)))
            if values:
                found.append(NonFinite(parameter.name, values, parameter.count))
    return found


def describe(iteration: int, found: Sequence[NonFinite]) -> str:
    """Return the sentence that says what was found; there is something."""
    first, *others = found
    more = f", and of {_number(len(others), 'other parameter')}" if others else ""
    verb = "is" if first.values == 1 else "are"
    return (
        f"{first.name}: {first.values} of {_number(first.size, 'value')} of the gradient at "
        f"iteration {iteration} {verb} not finite{more}"
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
