"""How far a run is and how good, read while it trains: from its audit, or from Caffe's log."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, Optional, Tuple

from caffe_pysgd.audit.store import DEFAULT_NAME, Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.experiments.sweep_file import ObjectiveOptions

LOG = "caffe.log"

_ITERATION = re.compile(r"\] Iteration (\d+)(?: \([^)]*\))?, loss = (\S+)")
_TESTING = re.compile(r"\] Iteration (\d+), Testing net \(#(\d+)\)")
_TEST_OUTPUT = re.compile(r"Test net output #\d+: (\S+) = (\S+)")

Curve = Dict[int, float]
"""A value by the iteration that it is of."""


@dataclass
class Progress:
    """What is known of a run.

    Attributes:
        iteration: how many updates were done, as far as known.
        losses: the training loss, as the objective wants it.
        tests: test scores by (test net, output).
    """

    iteration: int = 0
    losses: Curve = field(default_factory=dict)
    tests: Dict[Tuple[int, str], Curve] = field(default_factory=dict)

    @property
    def loss(self) -> Optional[float]:
        """The last loss, if there is one."""
        return self.losses[max(self.losses)] if self.losses else None

    def curve(self, objective: ObjectiveOptions) -> Curve:
        """Return the values that an objective is made of."""
        if objective.loss:
            return self.losses
        return self.tests.get((objective.net, objective.score or ""), {})


def objective_value(curve: Curve, objective: ObjectiveOptions) -> float:
    """Return what a run is worth; NaN without a finite value."""
    values = [value for _, value in sorted(curve.items()) if math.isfinite(value)]
    if not values:
        return math.nan
    if objective.take == "best":
        return (max if objective.maximized else min)(values)
    kept = values[-1:] if objective.take == "last" else values[-objective.of_last :]
    return math.fsum(kept) / len(kept)


def read_progress(
    folder: Path, host: str, objective: ObjectiveOptions, whole: bool = False
) -> Progress:
    """Return what is known of a run now.

    Args:
        folder: its run directory.
        host: ``native`` has no audit, so its log is read.
        objective: says which loss is meant.
        whole: whether to read all of the losses, which takes time, or the last one.
    """
    if host == "native":
        return read_log(folder / LOG)
    try:
        with Store(folder / DEFAULT_NAME) as store:
            return _read_audit(store, objective.loss or "smoothed", whole or bool(objective.loss))
    except UserError:  # there is none yet
        return Progress()


def _read_audit(store: Store, loss: str, whole: bool) -> Progress:
    column = "smoothed_loss" if loss == "smoothed" else "loss"
    if whole:
        losses = _curve(*store.series(column))
    else:
        rows = store.query(
            f"SELECT iteration, {column} FROM iterations WHERE session ="
            " (SELECT max(session) FROM sessions) ORDER BY iteration DESC LIMIT 1"
        )
        losses = {i: math.nan if value is None else value for i, value in rows}
    sessions = store.sessions()
    done = max(losses) + 1 if losses else sessions[-1].start_iteration if sessions else 0
    tests = {key: _curve(*series) for key, series in store.tests().items()}
    return Progress(done, losses, tests)


def _curve(iterations: Iterable[Any], values: Iterable[Any]) -> Curve:
    return {int(i): float(value) for i, value in zip(iterations, values)}


def read_log(path: Path) -> Progress:
    """Return what Caffe's log says; of an iteration that it names twice, the later value."""
    progress = Progress()
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return progress
    tested, net = 0, 0
    for line in text.splitlines():
        testing, output, trained = (p.search(line) for p in (_TESTING, _TEST_OUTPUT, _ITERATION))
        if testing:
            tested, net = int(testing[1]), int(testing[2])
        elif output:
            progress.tests.setdefault((net, output[1]), {})[tested] = _number(output[2])
        elif trained:
            progress.losses[int(trained[1])] = _number(trained[2])
            progress.iteration = int(trained[1])
    return progress


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
