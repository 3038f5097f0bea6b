"""What a sweep found: every run's state, and the combinations ranked over their seeds."""

from __future__ import annotations

import csv
import math
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import yaml

from caffe_pysgd.experiments.runner import RUNS
from caffe_pysgd.experiments.space import Values
from caffe_pysgd.experiments.study import STATES, runs_of
from caffe_pysgd.experiments.sweep_file import Sweep
from caffe_pysgd.files import replacing
from caffe_pysgd.run.outputs import RESOLVED
from caffe_pysgd.run.overrides import read_merged

if TYPE_CHECKING:
    from optuna import Study

CSV = "results.csv"


@dataclass(frozen=True)
class RunResult:
    """One run.

    Attributes:
        value: what the objective says; None unless it finished.
        reason: why it failed.
        scores: the last test scores.
        threads: how many cores it had.
    """

    name: str
    folder: Path
    values: Values
    seed: int
    host: str
    state: str
    value: Optional[float]
    reason: str
    seconds: Optional[float]
    scores: Dict[str, float]
    threads: int


@dataclass(frozen=True)
class Ranked:
    """The runs of one combination of values, over the seeds.

    Attributes:
        mean, deviation: of the finished runs; the sample's deviation, NaN of a single one.
    """

    values: Values
    runs: Tuple[RunResult, ...]
    mean: float
    deviation: float

    @property
    def finished(self) -> int:
        """How many of the runs finished."""
        return sum(run.value is not None for run in self.runs)


def results(sweep: Sweep, study: Study) -> List[RunResult]:
    """Return all runs that have values by now, in the order in which they were queued."""
    found = []
    for name, trial in runs_of(study).items():
        attributes = trial.user_attrs
        found.append(
            RunResult(
                name,
                sweep.directory / RUNS / name,
                attributes["values"],
                attributes["seed"],
                sweep.host_of(attributes["values"]),
                STATES[trial.state.name],
                trial.value if trial.state.name == "COMPLETE" else None,
                attributes.get("reason", ""),
                attributes.get("seconds"),
                attributes.get("scores", {}),
                attributes.get("threads", 1),
            )
        )
    return found


def ranked(sweep: Sweep, runs: List[RunResult]) -> List[Ranked]:
    """Return the combinations, the best mean first; those without a finished run last."""
    groups: Dict[str, List[RunResult]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(run.values.items())), []).append(run)
    rows = []
    for group in groups.values():
        values = [run.value for run in group if run.value is not None]
        mean = statistics.fmean(values) if values else math.nan
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        rows.append(Ranked(group[0].values, tuple(group), mean, deviation))
    sign = -1 if sweep.options.objective.maximized else 1
    return sorted(rows, key=lambda row: (math.isnan(row.mean), sign * row.mean))


def best_run(sweep: Sweep, runs: List[RunResult]) -> Optional[RunResult]:
    """Return the best run of the best combination, or None before one finished."""
    rows = [row for row in ranked(sweep, runs) if row.finished]
    if not rows:
        return None
    choose = max if sweep.options.objective.maximized else min
    return choose((run for run in rows[0].runs if run.value is not None), key=_value_of)


def _value_of(run: RunResult) -> float:
    assert run.value is not None
    return run.value


def best_yaml(sweep: Sweep, run: RunResult) -> str:
    """Return a YAML for the working directory that trains a run again, to the same bits.

    Raises:
        UserError: the run's resolved configuration is gone.
    """
    content = read_merged(run.folder / RESOLVED)
    content["run_dir"] = str(Path("runs", f"{sweep.name}-best"))
    for key in ("solver", "module_path"):
        content[key] = os.path.relpath(content[key])
    command = "solve" if run.host == "solve" else "train"
    variables = f"OMP_NUM_THREADS={run.threads} OPENBLAS_NUM_THREADS={run.threads}"
    comment = (
        f"# {run.name} of {sweep.source}, host {run.host}: {run.value}\n"
        f"# {variables} caffe-pysgd {command} THIS.yaml\n"
    )
    return comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def write_csv(sweep: Sweep, runs: List[RunResult]) -> Path:
    """Write the ranked table, a line for each run; return the file.

    Raises:
        UserError: it cannot be written.
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.values))
    scores = list(dict.fromkeys(name for run in runs for name in run.scores))
    header = ["rank", "run", *keys, "seed", "host", "state", "value", "mean", "deviation"]
    path = sweep.directory / CSV
    with replacing(path) as place, open(place, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header, "seconds", *scores, "reason"])
        for rank, row in enumerate(ranked(sweep, runs), 1):
            for run in row.runs:
                cells: List[Any] = [rank, run.name, *(run.values.get(key) for key in keys)]
                cells += [run.seed, run.host, run.state, run.value]
                cells += [None if math.isnan(v) else v for v in (row.mean, row.deviation)]
                cells += [run.seconds, *(run.scores.get(name) for name in scores)]
                writer.writerow([*cells, run.reason])
    return path
