"""Gradients that are not finite: finding them, and saying so."""

from __future__ import annotations

from typing import List, NamedTuple, Sequence

import numpy as np

from caffe_pysgd.update import Parameter


class NonFinite(NamedTuple):
    """A parameter, and how many of its gradient's values are infinite or not a number."""

    name: str
    values: int
    size: int


def find_nonfinite(parameters: Sequence[Parameter]) -> List[NonFinite]:
    """Return the parameters whose gradients are not finite."""
    found = []
    for parameter in parameters:
        # One pass without a temporary array; a sum that overflows is looked at again.
        if not np.isfinite(np.dot(parameter.diff, parameter.diff)):
            values = parameter.diff.size - int(np.count_nonzero(np.isfinite(parameter.diff)))
            if values:
                found.append(NonFinite(parameter.name, values, parameter.diff.size))
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
