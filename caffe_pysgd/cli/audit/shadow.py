"""``caffe-pysgd audit shadow``: every update of a native training, predicted and compared."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import click

from caffe_pysgd.cli.options import (
    iterations_option,
    json_option,
    net_state_options,
    no_user_code_option,
    set_options,
    source_argument,
    stages_of,
    start_options,
)
from caffe_pysgd.cli.progress import TrainingBar, training_bars
from caffe_pysgd.errors import UserError

if TYPE_CHECKING:
    from caffe_pysgd.proof.shadow import Shadow, ShadowReport
    from caffe_pysgd.run.run import Run


@click.command()
@source_argument
@iterations_option
@start_options
@json_option("Also write what was found as JSON.")
@set_options
@net_state_options
@no_user_code_option
def shadow(
    source: Path,
    iterations: Optional[int],
    snapshot: Optional[str],
    weights: List[str],
    json_path: Optional[Path],
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Train X with the native solver, predict each of its updates, and compare.

    Compares every weight after every iteration, and the history after the last one, bit by bit.
    What a YAML overrides applies to the training and to the prediction. Everything is written to a
    temporary directory and removed. Exit code 0 only if nothing differs, else 1.
    """
    from caffe_pysgd.files import write_json
    from caffe_pysgd.proof.verify import prepare
    from caffe_pysgd.run.resolve import resolve
    from caffe_pysgd.run.start import start_from
    from caffe_pysgd.stock.snapshots import read_solver_state

    os.environ.setdefault("GLOG_minloglevel", "2")  # before Caffe is loaded: no log
    run = resolve(source, iterations, level, stages_of(stage), changes)
    run = start_from(run, snapshot, weights)
    start = read_solver_state(Path(snapshot)).iteration if snapshot else 0
    if run.solver.max_iter <= start:
        raise UserError(
            f"{source}: max_iter is {run.solver.max_iter}: nothing would be compared; give "
            f"--iterations N, more than {start}"
        )
    run = prepare(run)
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder, training_bars() as bars:
        report = _train(
            run, snapshot, Path(folder), TrainingBar(bars, "shadow", run.solver.max_iter)
        )
    click.echo(str(report))
    if json_path:
        write_json(json_path, _as_json(report))
    sys.exit(1 if report.differ or report.divergence else 0)


def _train(run: Run, snapshot: Optional[str], folder: Path, bar: TrainingBar) -> ShadowReport:
    from caffe_pysgd.proof.shadow import shadow as attach
    from caffe_pysgd.stock import pycaffe
    from caffe_pysgd.stock.snapshots import snapshot_names

    stock = run.with_solver(snapshot_prefix=str(folder / "snapshot"), train_state=run.state)
    native = pycaffe.compiled().get_solver(str(stock.write_stock(folder)))
    if snapshot:
        native.restore(snapshot)
    monitor: Shadow = attach(native, run, snapshot)
    while native.iter < run.solver.max_iter:
        native.step(1)
        monitor.check()
        bar.reach(native.iter)
    native.snapshot()
    _, state = snapshot_names(folder / "snapshot", native.iter, run.hdf5)
    monitor.check_history(state)
    return monitor.report


def _as_json(report: ShadowReport) -> Dict[str, Any]:
    found = asdict(report)
    if report.divergence:
        for name in ("expected", "found"):
            found["divergence"][f"{name}_hex"] = getattr(report.divergence, name).hex()
    return found
