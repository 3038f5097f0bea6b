"""``caffe-pysgd solve``: `caffe train`, the whole loop in Python."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Tuple

import click

from caffe_pysgd.cli.options import (
    WholeNumber,
    is_quiet,
    iterations_option,
    net_state_options,
    no_user_code_option,
    overwrite_option,
    run_dir_option,
    set_options,
    source_or_solver,
    stages_of,
    start_options,
)

if TYPE_CHECKING:
    from caffe_pysgd.hosts.ranks.ranks import Ranks
    from caffe_pysgd.hosts.solver import Solver
    from caffe_pysgd.run.run import Run
    from caffe_pysgd.run.settings import AuditSettings

_EFFECT = click.Choice(["none", "stop", "snapshot"])


@click.command()
@source_or_solver
@run_dir_option
@iterations_option
@start_options
@overwrite_option
@click.option("--gpu", metavar="N", type=WholeNumber(0), help="Run on this GPU.")
@click.option("--sigint_effect", type=_EFFECT, default="stop", help="What SIGINT does.")
@click.option("--sighup_effect", type=_EFFECT, default="snapshot", help="What SIGHUP does.")
@set_options
@net_state_options
@no_user_code_option
def solve(
    source: Path,
    run_dir: Optional[Path],
    iterations: Optional[int],
    snapshot: Optional[str],
    weights: List[str],
    overwrite: bool,
    gpu: Optional[int],
    sigint_effect: str,
    sighup_effect: str,
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Train X as `caffe train` does, with the whole loop in Python.

    The flags, the log and the snapshots are those of `caffe train`, and so are the bits. On a
    terminal a progress bar takes the log's place; --verbose brings it back.
    """
    from caffe_pysgd.hosts.ranks.launch import as_rank
    from caffe_pysgd.hosts.ranks.world import end_together
    from caffe_pysgd.run.own_snapshots import chosen_snapshot
    from caffe_pysgd.run.resolve import resolve
    from caffe_pysgd.run.start import check_native_snapshot, start_from

    effects = {signal.SIGINT: sigint_effect, signal.SIGHUP: sighup_effect}
    with end_together():
        run = resolve(source, iterations, level, stages_of(stage), changes, run_dir, overwrite)
        tell = partial(click.echo, err=True)
        snapshot = chosen_snapshot(run, snapshot, check_native_snapshot, tell)
        run, ranks = as_rank(start_from(run, snapshot, weights))
        _train(run, ranks, snapshot, gpu, effects)


def _train(
    run: Run,
    ranks: Optional[Ranks],
    snapshot: Optional[str],
    gpu: Optional[int],
    effects: Dict[signal.Signals, str],
) -> None:
    from caffe_pysgd.audit import manifest
    from caffe_pysgd.hosts.audience import LastSnapshot, stopped_line
    from caffe_pysgd.hosts.solver import Action, Solver
    from caffe_pysgd.stock import pycaffe
    from caffe_pysgd.stock.solver_file import asks_for_gpu

    first = ranks is None or ranks.world.rank == 0  # who tests, displays, snapshots and records
    on_gpu = gpu is not None or asks_for_gpu(run.solver)
    if on_gpu:
        pycaffe.require_gpu()  # before anything is written
    audit = _prepare(run, snapshot) if first else None
    terminal = sys.stderr.isatty() and "GLOG_logtostderr" not in os.environ and not is_quiet()
    with_bar = first and terminal
    caffe = pycaffe.compiled()
    quiet = int(os.environ.get("GLOG_minloglevel", 0))  # noqa: SIM112 - glog's own name
    caffe.init_log(2 if with_bar or not first else quiet, True)
    device = run.solver.device_id if gpu is None else gpu
    _choose_device(caffe, device if on_gpu else None)
    python_solver = Solver(run, audit, ranks)
    if ranks:
        ranks.dealt()
    python_solver.undisturbed = _only_caffes_own_layers(python_solver, caffe)
    if not run.solver.snapshot_diff:  # then nobody looks at the diffs
        python_solver.updater.keeps_update = False
        python_solver.updater.clears_diffs = python_solver.undisturbed and not ranks
    last = LastSnapshot()
    python_solver.updater.observers.append(last)
    requests = ranks.agreed if ranks else _caught(effects)
    python_solver.set_action_function(
        lambda: Action(effects[requests.pop(0)]) if requests else Action.NONE
    )
    if snapshot:
        caffe.log(f"Resuming from {snapshot}")
        python_solver.restore(snapshot)
    caffe.log("Starting Optimization")
    python_solver.progress = with_bar
    python_solver.solve()
    caffe.log("Optimization Done.")
    if python_solver.iter < run.solver.max_iter and last.state:
        said = stopped_line(python_solver.iter, manifest.command()["command"], last.state)
        click.echo(said, err=True, nl=False)


def _prepare(run: Run, snapshot: Optional[str]) -> AuditSettings:
    """Write and lock what there is to be before the log begins; return what is recorded."""
    from caffe_pysgd.audit.plan import plan_audit, size_warning, write_manifest
    from caffe_pysgd.files import lock_folder
    from caffe_pysgd.run.outputs import own_folder
    from caffe_pysgd.run.own_snapshots import clear_prefix, make_snapshot_folder
    from caffe_pysgd.run.resolved import write_resolved

    directory = own_folder(run.directory)
    audit = plan_audit(run, directory, always=True)
    assert audit
    if said := size_warning(run, audit):
        click.echo(f"caffe-pysgd: {said}", err=True)
    make_snapshot_folder(run)
    lock_folder(directory)  # for as long as this process lives
    clear_prefix(run, snapshot)
    run.write_stock(directory)
    write_manifest(run, audit, "solver")
    write_resolved(run, directory)
    return audit


def _choose_device(caffe: Any, device: Optional[int]) -> None:
    if device is None:
        caffe.log("Use CPU.")
        caffe.set_mode_cpu()
        return
    caffe.log(f"Using GPUs {device}")
    caffe.set_device(device)
    caffe.set_mode_gpu()


def _only_caffes_own_layers(solver: Solver, caffe: Any) -> bool:
    """Return whether the weights stay where they are: a Python layer may do anything to them.

    Where Caffe knows GPUs, they must be asked for each time.
    """
    python = any(layer.type == "Python" for layer in solver.net.layers)
    return not python and not hasattr(caffe.Blob, "_gpu_data_ptr")


def _caught(numbers: Iterable[signal.Signals]) -> List[signal.Signals]:
    """Catch signals; return a list to which each is added as it comes."""
    requests: List[signal.Signals] = []
    # Caffe dies of it at once; here what is being written beside is tidied up first.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for number in numbers:
        signal.signal(number, lambda its, _: requests.append(signal.Signals(its)))
    return requests
