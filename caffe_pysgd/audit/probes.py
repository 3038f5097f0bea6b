"""What is recorded of arrays on request: single elements at every stage, and histograms."""

from __future__ import annotations

import json
from typing import Dict, List, Sequence, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.audit.ledger import Row
from caffe_pysgd.update import Parameter, Stage

BINS = 64

# Of the stages between, a histogram shows little that these do not.
_IN_HISTOGRAMS = (Stage.GRADIENT, Stage.UPDATE, Stage.DATA)


class Probes:
    """The values of chosen elements, stage by stage.

    Args:
        elements: as (parameter, flat index).
    """

    def __init__(self, elements: Sequence[Tuple[int, int]]) -> None:
        self._elements: Dict[int, List[int]] = {}
        for parameter, element in elements:
            known = self._elements.setdefault(parameter, [])
            if element not in known:
                known.append(element)
        self.rows: List[Row] = []

    def see(
        self, p: Parameter, iteration: int, parameter: int, stage: Stage, array: Floats
    ) -> None:
        """Keep what the elements are at a stage; before the first also the weight and the state."""
        if parameter not in self._elements:
            return
        values = {stage.value: array}
        if stage is Stage.GRADIENT:
            values["data before"] = p.data
            values.update({f"{slot} before": held for slot, held in p.state.items()})
        elif stage is Stage.DATA:
            values.update(p.state)
        for element in self._elements[parameter]:
            for name, source in values.items():
                value = source[element : element + 1]
                bits = int(value.view(np.uint32)[0])
                self.rows.append((iteration, parameter, element, name, real(value[0]), bits))


class Histograms:
    """Histograms of raw gradient, update and new weights."""

    def __init__(self) -> None:
        self.rows: List[Row] = []

    def see(self, iteration: int, parameter: int, stage: Stage, array: Floats) -> None:
        """Count an array's finite values in equal bins, from the lowest to the highest."""
        if stage not in _IN_HISTOGRAMS:
            return
        finite = array[np.isfinite(array)].astype(np.float64)
        if finite.size:
            counts, edges = np.histogram(finite, BINS)
            low, high = real(edges[0]), real(edges[-1])
            text = json.dumps(counts.tolist())
            self.rows.append((iteration, parameter, stage.value, low, high, text))


def real(value: object) -> object:
    """Return a number as SQLite keeps it: NULL for NaN, and one kind of zero."""
    number = float(value)  # type: ignore[arg-type]
    return None if number != number else number + 0.0
