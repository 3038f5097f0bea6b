"""The page that compares the runs of a sweep: one HTML file that needs no network."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

import numpy as np

from caffe_pysgd.audit.store import DEFAULT_NAME
from caffe_pysgd.experiments.progress import Curve, read_progress
from caffe_pysgd.experiments.results import RunResult, ranked, results
from caffe_pysgd.experiments.screen import shown_value
from caffe_pysgd.experiments.study import import_optuna
from caffe_pysgd.experiments.sweep_file import Sweep, short_names
from caffe_pysgd.files import write_files
from caffe_pysgd.run.outputs import REPORT, refuse_foreign
from caffe_pysgd.views.rendering import render
from caffe_pysgd.views.report import write_report
from caffe_pysgd.views.report.payload import Arrays, as_text

if TYPE_CHECKING:
    from optuna import Study

PAGE = "index.html"

_HERE = Path(__file__).parent
_MOST_POINTS = 400
_MOST_DRAWN = 200  # curves; of more runs, those of the best combinations


def write_reports(runs: List[RunResult]) -> None:
    """Write the report of each run that ended and has an audit, unless it is there.

    Raises:
        UserError: one cannot be written.
    """
    for run in runs:
        ended = run.state not in ("waiting", "running")
        report = run.folder / REPORT
        if ended and (run.folder / DEFAULT_NAME).is_file() and not report.exists():
            write_report([run.folder], check=False)


def write_comparison(sweep: Sweep, study: Study) -> Path:
    """Write the page of a sweep as it stands; return the file.

    Raises:
        UserError: Jinja2 is not installed, or the page cannot be written.
    """
    runs = results(sweep, study)
    rows = ranked(sweep, runs)
    drawn = [run for row in rows for run in row.runs if run.state != "waiting"][:_MOST_DRAWN]
    keys = sweep.varied()
    short = short_names(keys)
    objective, arrays = sweep.options.objective, Arrays()
    html = render(
        _HERE / "assets/comparison.html",
        "the page",
        title=sweep.name,
        objective=f"{objective.take} {objective.score or f'{objective.loss} loss'}",
        counts=_counts(runs),
        keys=[short[key] for key in keys],
        ranking=[
            {
                "values": [shown_value(row.values.get(key)) for key in keys],
                "mean": _shown(row.mean),
                "deviation": _shown(row.deviation, 3),
                "finished": f"{row.finished} of {len(row.runs)}",
            }
            for row in rows
        ],
        runs=[
            {
                "rank": rank,
                "values": [shown_value(run.values.get(key)) for key in keys],
                "seed": run.seed,
                "value": shown_value(run.value),
                "state": run.state,
                "reason": run.reason,
                "seconds": "" if run.seconds is None else f"{run.seconds:.0f}",
                "name": run.name,
                "report": _link(sweep, run),
            }
            for rank, row in enumerate(rows, 1)
            for run in row.runs
        ],
        importance=_importance(study, short),
        css=(_HERE / "assets/comparison.css").read_text("utf-8"),
        script=(_HERE / "assets/comparison.js").read_text("utf-8"),
        payload=as_text(
            {
                "keys": [{"key": key, "label": short[key]} for key in keys],
                "maximized": objective.maximized,
                "runs": [_curves(sweep, run, arrays) for run in drawn],
                "arrays": arrays.texts,
            }
        ),
    )
    path = sweep.directory / PAGE
    write_files({refuse_foreign(path): html})
    return path


def _counts(runs: List[RunResult]) -> List[Tuple[str, int]]:
    counts: Dict[str, int] = {}
    for run in runs:
        counts[run.state] = counts.get(run.state, 0) + 1
    return list(counts.items())


def _shown(value: float, digits: int = 6) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def _link(sweep: Sweep, run: RunResult) -> str:
    report = run.folder / REPORT
    return os.path.relpath(report, sweep.directory) if report.exists() else ""


def _importance(study: Study, short: Dict[str, str]) -> List[Tuple[str, float]]:
    """Return how much of the difference each key makes, as Optuna evaluates it."""
    importance = import_optuna().importance
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few runs
            found = importance.get_param_importances(study)
    except Exception:  # too few runs, or all the same: there is nothing to say
        return []
    return [
        (short.get(name, name), float(share)) for name, share in found.items() if share > 0.0005
    ]


def _curves(sweep: Sweep, run: RunResult, arrays: Arrays) -> Dict[str, Any]:
    """Return what the page draws of a run, in the form that a report's scripts read."""
    progress = read_progress(run.folder, run.host, sweep.options.objective, whole=True)
    x, y = _columns(progress.losses)
    return {
        "name": run.name,
        "first": int(x[0]) if len(x) else 0,
        "x": arrays.add(x),
        "scalars": {"loss": arrays.add(y)},
        "tests": [
            {
                "net": net,
                "output": output if not net else f"#{net} {output}",
                **dict(zip("xy", map(arrays.add, _columns(curve)))),
            }
            for (net, output), curve in progress.tests.items()
        ],
        "px": arrays.add(np.zeros(0)),
        "parameters": [],
        "values": {key: json.loads(json.dumps(value)) for key, value in run.values.items()},
        "seed": run.seed,
        "value": run.value,
    }


def _columns(curve: Curve) -> Tuple[np.ndarray, np.ndarray]:
    """Return a curve as two columns, every n-th point of a long one."""
    points = sorted(curve.items())
    every = max(1, -(-len(points) // _MOST_POINTS))
    kept = points[::every]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return np.array([i for i, _ in kept], float), np.array([v for _, v in kept], float)
