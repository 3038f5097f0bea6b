"""What the page shows where no script runs: the curve of the loss, and the last values."""

from __future__ import annotations

from typing import List

import numpy as np

from caffe_pysgd.views.report.gathering import ParameterRecord, RunRecord

_WIDE, _HIGH = 640, 160


def curve(record: RunRecord) -> str:
    """Return the loss as an SVG element; nothing where none was recorded."""
    series = record.scalars.get("smoothed_loss") or record.scalars.get("loss")
    if series is None:
        return ""
    there = np.isfinite(series.last)
    at, loss = record.points.at[there], series.last[there]
    if len(loss) < 2:
        return ""
    every = max(1, len(loss) // 400)
    at, loss = at[::every], loss[::every]
    x = (at - at[0]) / max(1, at[-1] - at[0]) * _WIDE
    y = (loss.max() - loss) / (loss.max() - loss.min() or 1.0) * _HIGH
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    return (
        f'<svg viewBox="-2 -2 {_WIDE + 4} {_HIGH + 4}" width="{_WIDE}" role="img"'
        f' aria-label="Loss between {loss.min():.4g} and {loss.max():.4g}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )


def last_values(record: RunRecord) -> List[List[str]]:
    """Return for each parameter its name, and ratio and norms at its last recorded update."""
    return [
        [p.parameter.name, _last(p, "ratio"), _last(p, "gradient"), _last(p, "data")]
        for p in record.parameters
        if p.figures
    ]


def _last(p: ParameterRecord, of: str) -> str:
    series = p.updates.get("ratio") if of == "ratio" else p.figures.get(of, {}).get("l2")
    values = np.zeros(0) if series is None else series.last[~np.isnan(series.last)]
    return f"{values[-1]:.4g}" if len(values) else "-"
