"""What a report shows of one run, read from its audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple

import numpy as np

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

_FEWEST, _MOST = 60, 2000
_ARRAYS = 5  # gradient, regularized, a history or two, update, data


class TestScores(NamedTuple):
    """An output of a test net over time."""

    net: int
    output: str
    iterations: np.ndarray
    values: np.ndarray


@dataclass
class ParameterRecord:
    """One learnable parameter: what it is, and its figures over time."""

    parameter: RecordedParameter
    figures: Dict[str, Dict[str, Series]] = field(default_factory=dict)
    updates: Dict[str, Series] = field(default_factory=dict)


@dataclass
class RunRecord:
    """Everything that a report shows of one run.

    Attributes:
        points: at which iterations the series of the whole run are.
        parameter_points: at which those of single parameters are.
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


def gather(name: str, store: Store, runs: int = 1) -> RunRecord:
    """Read a run's audit.

    Args:
        name: what the run is called on the page.
        store: its audit.
        runs: how many share the page, and so the room on it.

    Raises:
        UserError: nothing was recorded, or the file is damaged.
    """
    manifest = store.manifest()
    points = Points(*current_iterations(store), SCALAR_POINTS)
    scalars = points.read(store, "iterations", SCALARS)
    known = store.parameters()
    parameter_points = _parameter_points(store, len(known), runs)
    return RunRecord(
        name=name,
        store=store,
        manifest=manifest,
        sessions=store.sessions(),
        points=points,
        scalars=scalars.get((), {}),
        parameter_points=parameter_points,
        parameters=_parameters(store, known, parameter_points),
        tests=[TestScores(net, output, *series) for (net, output), series in store.tests().items()],
        events=list(store.rows("events")),
        snapshots=list(store.rows("snapshots")),
    )


def _parameter_points(store: Store, parameters: int, runs: int) -> Points:
    iterations = current_iterations(store, "updates")
    series = max(1, parameters) * (_ARRAYS * len(FIGURES) + 2) * runs
    whole = max(_FEWEST, min(_MOST, VALUES // series))
    if len(iterations[0]) <= whole:
        return Points(*iterations, whole)
    return Points(*iterations, max(_FEWEST, whole // 3))  # each point with its extremes


def _parameters(
    store: Store, known: List[RecordedParameter], points: Points
) -> List[ParameterRecord]:
    records = {parameter.parameter: ParameterRecord(parameter) for parameter in known}
    updates = points.read(store, "updates", ("ratio", "local_rate"), ["parameter"])
    for (number,), series in updates.items():
        records[number].updates = series
    figures = points.read(store, "figures", FIGURES, ["parameter", "quantity"])
    for (number, quantity), series in figures.items():
        records[number].figures[quantity] = series
    for record in records.values():
        record.figures = dict(sorted(record.figures.items(), key=lambda item: _order(item[0])))
    return list(records.values())


def _order(quantity: str) -> int:
    """Return where an array comes in an update: gradient first, the new weights last."""
    first, last = ("gradient", "regularized"), ("update", "data")
    if quantity in first:
        return first.index(quantity)
    return len(first) + 1 + last.index(quantity) if quantity in last else len(first)
