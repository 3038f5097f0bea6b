"""What the page's scripts read: the series as JSON, arrays as base64, each array once."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from caffe_pysgd.audit.series import Series
from caffe_pysgd.views.report.gathering import Histogram, ParameterRecord, RunRecord

# Of the figures whose extremes over a stretch are one side of it alone, that side is given; the
# others have their last value, and its extremes unless they say nothing.
_ONE_SIDED = {"mean": "last", "min": "low", "max": "high"}


def payload(records: Sequence[RunRecord]) -> str:
    """Return the JSON, safe inside a ``<script>`` element."""
    arrays = Arrays()
    runs = [_run(record, arrays) for record in records]
    return as_text({"runs": runs, "arrays": arrays.texts})


def as_text(content: Dict[str, Any]) -> str:
    """Return plain values as JSON that is safe inside a ``<script>`` element."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


class Arrays:
    """The arrays of a page; many parameters have the same ones, such as a rate.

    Each is base64 of little-endian numbers: float64, or after a colon float32, where a point stands
    for many iterations and seven digits are enough.
    """

    def __init__(self) -> None:
        self.texts: List[str] = []
        self._known: Dict[str, int] = {}

    def add(self, values: np.ndarray, single: bool = False) -> str:
        """Return what stands for an array: its place, after a ``#``."""
        data = np.asarray(values, "<f4" if single else "<f8").tobytes()
        text = ":" * single + base64.b64encode(data).decode("ascii")
        if text not in self._known:
            self._known[text] = len(self.texts)
            self.texts.append(text)
        return f"#{self._known[text]}"

    def series(self, series: Series, single: bool = False, side: Optional[str] = None) -> Any:
        """Return an array, or a number where it is constant; three where points are thinned."""
        if side and series.low is not None:
            return self._column(getattr(series, side), single)
        last = self._column(series.last, single)
        if series.low is None or series.high is None:
            return last
        parts = [last, self._column(series.low, single), self._column(series.high, single)]
        if last is None and parts[1] is None:
            return None
        return last if all(part == last for part in parts) else parts

    def _column(self, values: np.ndarray, single: bool) -> Any:
        first = float(values[0]) if len(values) else math.nan
        if math.isnan(first) and np.isnan(values).all():
            return None
        if math.isfinite(first) and (values == first).all():
            return first
        return self.add(values, single)


def _run(record: RunRecord, arrays: Arrays) -> Dict[str, Any]:
    single = record.parameter_points.is_thinned
    return {
        "name": record.name,
        "first": record.points.first,
        "x": arrays.add(record.points.at),
        "scalars": {name: arrays.series(series) for name, series in record.scalars.items()},
        "tests": [
            {
                "net": test.net,
                "output": test.output if test.net == 0 else f"#{test.net} {test.output}",
                "x": arrays.add(test.iterations),
                "y": arrays.add(test.values),
            }
            for test in record.tests
        ],
        "px": arrays.add(record.parameter_points.at),
        "thinned": single,
        "parameters": [_parameter(parameter, arrays, single) for parameter in record.parameters],
    }


def _parameter(record: ParameterRecord, arrays: Arrays, single: bool) -> Dict[str, Any]:
    parameter = record.parameter
    return {
        "name": parameter.name,
        "shape": list(parameter.shape),
        "count": parameter.count,
        "lr_mult": parameter.lr_mult,
        "decay_mult": parameter.decay_mult,
        "rule": parameter.rule,
        "statistic": parameter.statistic,
        "updates": {name: arrays.series(one, single) for name, one in record.updates.items()},
        "figures": {
            quantity: {
                figure: arrays.series(series, single, _ONE_SIDED.get(figure))
                for figure, series in figures.items()
            }
            for quantity, figures in record.figures.items()
        },
        "histograms": {
            quantity: [_histogram(one) for one in found]
            for quantity, found in record.histograms.items()
        },
    }


def _histogram(one: Histogram) -> List[Any]:
    """Return iteration, ends, and the bins in 255ths of the fullest, for a drawing."""
    counts = np.array(one.counts, np.float64)
    bins = (255 * counts / (counts.max() or 1)).round().astype(np.uint8)
    return [one.iteration, one.low, one.high, base64.b64encode(bins.tobytes()).decode("ascii")]
