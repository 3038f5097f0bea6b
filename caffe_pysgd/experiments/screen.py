"""A sweep in the terminal: the runs while they train, and the ranked table in the end."""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, Optional

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from caffe_pysgd.experiments.progress import read_progress
from caffe_pysgd.experiments.results import Ranked, RunResult, ranked
from caffe_pysgd.experiments.runner import Now
from caffe_pysgd.experiments.sweep_file import Sweep, short_names

_COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "pruned": "yellow"}
_ORDER = ("running", "failed", "finished", "pruned", "waiting")
_OTHER_LINES = 6


def live_table(
    sweep: Sweep, runs: List[RunResult], now: Mapping[str, Now], height: int
) -> RenderableType:
    """Return the runs as a table that fits into so many lines, those that train first.

    Args:
        sweep: whose they are.
        runs: all that have values by now.
        now: what those of this process do; those of others are looked at.
        height: of the terminal.
    """
    keys = sweep.varied()
    table = Table(box=None, pad_edge=False)
    for title in (
        *short_names(keys).values(),
        "seed",
        "iteration",
        "loss",
        "score",
        "it/s",
        "left",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    order = sorted(runs, key=lambda run: _ORDER.index(run.state))
    shown = order[: max(1, height - _OTHER_LINES)]
    for run in shown:
        table.add_row(
            *(shown_value(run.values.get(key)) for key in keys),
            str(run.seed),
            *_moment(sweep, run, now.get(run.name) or _look(sweep, run)),
            Text(f"{run.state}{f': {run.reason}' if run.reason else ''}", style=_style(run)),
        )
    counts: Dict[str, int] = {}
    for run in runs:
        counts[run.state] = counts.get(run.state, 0) + 1
    said = ", ".join(f"{counts[state]} {state}" for state in _ORDER if state in counts)
    hidden = f"; {len(order) - len(shown)} not shown" if len(order) > len(shown) else ""
    return Group(table, Text(f"{len(runs)} runs: {said}{hidden}", style="dim"))


def _look(sweep: Sweep, run: RunResult) -> Optional[Now]:
    """Return how far a run is that another process trains, where its folder can be seen."""
    if run.state != "running":
        return None
    return Now(read_progress(run.folder, run.host, sweep.options.objective), 0.0)


def _moment(sweep: Sweep, run: RunResult, now: Optional[Now]) -> List[str]:
    """Return iteration, loss, score, speed and time left of a run."""
    if now is None:
        return ["", "", "" if run.value is None else f"{run.value:.6g}", "", ""]
    progress, speed = now.progress, now.speed()
    last = run.values.get("update.max_iter", sweep.max_iter)
    curve = progress.curve(sweep.options.objective)
    left = max(0, last - progress.iteration) / speed if speed and last else None
    return [
        f"{progress.iteration:,}",
        "" if progress.loss is None else f"{progress.loss:.4g}",
        f"{curve[max(curve)]:.6g}" if curve else "",
        f"{speed:.1f}" if speed else "",
        "" if left is None else f"{int(left) // 60}:{int(left) % 60:02}",
    ]


def _style(run: RunResult) -> str:
    return _COLOURS.get(run.state, "dim")


def shown_value(value: object) -> str:
    """Return a value of a run as a cell."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def ranked_table(sweep: Sweep, runs: List[RunResult]) -> Table:
    """Return the combinations as a table, the best first, with mean and deviation over seeds."""
    keys = sweep.varied()
    objective = sweep.options.objective
    title = objective.score or f"{objective.loss} loss"
    table = Table("rank", *short_names(keys).values(), f"{objective.take} {title}", "±", "runs")
    for rank, row in enumerate(ranked(sweep, runs), 1):
        cells = [shown_value(row.values.get(key)) for key in keys]
        table.add_row(
            str(rank), *cells, _number(row.mean, 6), _number(row.deviation, 3), _runs(row)
        )
    return table


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def _runs(row: Ranked) -> str:
    others = [run.state for run in row.runs if run.value is None]
    return f"{row.finished}" + (f" ({', '.join(others)})" if others else "")
