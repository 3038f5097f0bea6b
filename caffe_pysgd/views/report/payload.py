"""What the page's scripts read: the series as JSON, arrays as base64 of little-endian float64."""

from __future__ import annotations

import base64
import json
from typing import Any, Dict, List, Sequence

import numpy as np

from caffe_pysgd.audit.series import Series
from caffe_pysgd.views.report.gathering import ParameterRecord, RunRecord


def payload(records: Sequence[RunRecord]) -> str:
    """Return the JSON, safe inside a ``<script>`` element."""
    text = json.dumps({"runs": [_run(record) for record in records]}, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _run(record: RunRecord) -> Dict[str, Any]:
    return {
        "name": record.name,
        "first": record.points.first,
        "x": _floats(record.points.at),
        "scalars": {name: _series(series) for name, series in record.scalars.items()},
        "tests": [
            {
                "net": test.net,
                "output": test.output if test.net == 0 else f"#{test.net} {test.output}",
                "x": _floats(test.iterations),
                "y": _floats(test.values),
            }
            for test in record.tests
        ],
        "px": _floats(record.parameter_points.at),
        "parameters": [_parameter(parameter) for parameter in record.parameters],
    }


def _parameter(record: ParameterRecord) -> Dict[str, Any]:
    parameter = record.parameter
    return {
        "name": parameter.name,
        "shape": list(parameter.shape),
        "count": parameter.count,
        "lr_mult": parameter.lr_mult,
        "decay_mult": parameter.decay_mult,
        "rule": parameter.rule,
        "statistic": parameter.statistic,
        "updates": {name: _series(series) for name, series in record.updates.items()},
        "figures": {
            quantity: {figure: _series(series) for figure, series in figures.items()}
            for quantity, figures in record.figures.items()
        },
    }


def _series(series: Series) -> Any:
    """Return a string, or a number where it is constant; three of them where points are thinned."""
    parts: List[Any] = [_column(series.last)]
    if series.low is not None and series.high is not None:
        parts += [_column(series.low), _column(series.high)]
        if all(isinstance(part, float) and part == parts[0] for part in parts):
            parts = parts[:1]
    return parts if len(parts) > 1 and any(part is not None for part in parts) else parts[0]


def _column(values: np.ndarray) -> Any:
    if not len(values) or np.isnan(values).all():
        return None
    if np.isfinite(values[0]) and (values == values[0]).all():
        return float(values[0])
    return _floats(values)


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.asarray(values, "<f8").tobytes()).decode("ascii")
