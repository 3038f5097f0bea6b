"""What a report shows of one run, read from its audit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from caffe_pysgd.audit.check import Checked, judged
from caffe_pysgd.audit.scan import Progress, scan
from caffe_pysgd.audit.series import Points, Series, current_iterations
from caffe_pysgd.audit.store import FIGURES, RecordedParameter, Session, Store

SCALARS = (
    "rate",
    "loss",
    "smoothed_loss",
    "gradient_l2",
    "clip_factor",
    "pass_seconds",
    "update_seconds",
)
SCALAR_POINTS = 2000
VALUES = 400_000
"""How many values of single parameters all runs of a page together hold, about."""
HISTOGRAMS = 6000
"""How many histograms all runs of a page together hold, at most."""

_FEWEST, _MOST = 60, 2000
_ARRAYS = 5  # gradient, regularized, a history or two, update, data
_RIDGES = 16


class TestScores(NamedTuple):
    """An output of a test net over time."""

    net: int
    output: str
    iterations: np.ndarray
    values: np.ndarray


class Histogram(NamedTuple):
    """How an array's finite values are spread over equal bins from the lowest to the highest."""

    iteration: int
    low: float
    high: float
    counts: List[int]


@dataclass
class ParameterRecord:
    """One learnable parameter: what it is, and its figures over time."""

    parameter: RecordedParameter
    figures: Dict[str, Dict[str, Series]] = field(default_factory=dict)
    updates: Dict[str, Series] = field(default_factory=dict)
    histograms: Dict[str, List[Histogram]] = field(default_factory=dict)


@dataclass
class RunRecord:
    """One run.

    Attributes:
        points: at which its scalars are drawn.
        parameter_points: at which the figures of its parameters are drawn.
        checked: what its ledger's check found; None where nobody looked.
    """

    name: str
    store: Store
    manifest: Dict[str, Any]
    sessions: List[Session]
    points: Points
    scalars: Dict[str, Series]
    parameter_points: Points
    parameters: List[ParameterRecord]
    tests: List[TestScores]
    events: List[Dict[str, Any]]
    snapshots: List[Dict[str, Any]]
    checked: Optional[Checked]


def gather(
    name: str,
    store: Store,
    runs: int = 1,
    check: bool = True,
    progress: Optional[Progress] = None,
) -> RunRecord:
    """Read a run's audit.

    Args:
        name: what the run is called on the page.
        store: its audit.
        runs: how many share the page, and so the room on it.
        check: whether to check the ledger.
        progress: is told how far it is.

    Raises:
        UserError: nothing was recorded, or the file is damaged.
    """
    store.hold()
    manifest = store.manifest()
    points = Points(*current_iterations(store), SCALAR_POINTS)
    records = {p.parameter: ParameterRecord(p) for p in store.parameters()}
    parameter_points = _parameter_points(store, len(records), runs)
    scanned = scan(store, check, parameter_points, progress)
    for (number,), series in scanned.series["updates"].items():
        records[number].updates = series
    for (number, quantity), series in sorted(
        scanned.series["figures"].items(), key=lambda item: _order(item[0][1])
    ):
        records[number].figures[quantity] = series
    _add_histograms(store, records, HISTOGRAMS // runs)
    return RunRecord(
        name=name,
        store=store,
        manifest=manifest,
        sessions=store.sessions(),
        points=points,
        scalars=points.read(store, SCALARS),
        parameter_points=parameter_points,
        parameters=list(records.values()),
        tests=[TestScores(net, output, *series) for (net, output), series in store.tests().items()],
        events=list(store.rows("events")),
        snapshots=list(store.rows("snapshots")),
        checked=judged(store, scanned.chains) if check else None,
    )


def _parameter_points(store: Store, parameters: int, runs: int) -> Points:
    iterations = current_iterations(store, "updates")
    series = max(1, parameters) * (_ARRAYS * len(FIGURES) + 2) * runs
    whole = max(_FEWEST // min(runs, 4), min(_MOST, VALUES // series))
    if len(iterations[0]) <= whole:
        return Points(*iterations, whole)
    return Points(*iterations, max(_FEWEST // min(runs, 4), whole // 3))  # each with its extremes


def _add_histograms(store: Store, records: Dict[int, ParameterRecord], at_most: int) -> None:
    iterations, sessions = current_iterations(store, "histograms")
    if not len(iterations):
        return
    own = [dict(session=int(s), iteration=int(i)) for i, s in zip(iterations, sessions)]
    each = len(list(store.rows("histograms", **own[0])))
    many = min(_RIDGES, at_most // each, len(own))
    chosen = np.unique(np.linspace(len(own) - 1, 0, many).round().astype(int))
    for place in chosen.tolist():
        iteration = own[place]["iteration"]
        for row in store.rows("histograms", **own[place]):
            known = records[row["parameter"]].histograms.setdefault(row["quantity"], [])
            counts = json.loads(row["counts"])
            known.append(Histogram(iteration, row["low"], row["high"], counts))


def _order(quantity: str) -> int:
    """Return where an array comes in an update: gradient first, the new weights last."""
    first, last = ("gradient", "regularized"), ("update", "data")
    if quantity in first:
        return first.index(quantity)
    return len(first) + 1 + last.index(quantity) if quantity in last else len(first)
