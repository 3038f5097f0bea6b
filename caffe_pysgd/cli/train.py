"""``caffe-pysgd train``: inject, then become the stock `caffe train`."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import List, Optional, Tuple

import click

from caffe_pysgd.cli.options import (
    count_of,
    iterations_option,
    net_state_flags,
    net_state_options,
    no_user_code_option,
    overwrite_option,
    ranks_option,
    run_dir_option,
    set_options,
    source_or_solver,
    stages_of,
    start_options,
)
from caffe_pysgd.errors import UserError

_OWN_FLAGS = ("solver", "snapshot", "weights", "level", "stage", "iterations", "run-dir")


class _PassesOn(click.Command):
    """A command that leaves what is behind a ``--`` to another program."""

    def parse_args(self, context: click.Context, arguments: List[str]) -> List[str]:
        if "--" in arguments:
            dashes = arguments.index("--")
            arguments, context.meta[_BEHIND] = arguments[:dashes], arguments[dashes + 1 :]
        return super().parse_args(context, arguments)

    def collect_usage_pieces(self, context: click.Context) -> List[str]:
        return [*super().collect_usage_pieces(context), "[-- ARGS]"]


_BEHIND = f"{__name__}.behind the dashes"


@click.command(cls=_PassesOn)
@source_or_solver
@run_dir_option
@iterations_option
@ranks_option("Train with N processes over MPI; 'auto': as many as cores and records allow.")
@click.option("--dry-run", is_flag=True, help="Write the files and print the command; do not run.")
@start_options
@overwrite_option
@set_options
@net_state_options
@no_user_code_option
@click.pass_context
def train(
    context: click.Context,
    source: Path,
    run_dir: Optional[Path],
    iterations: Optional[int],
    ranks: Optional[str],
    dry_run: bool,
    snapshot: Optional[str],
    weights: List[str],
    overwrite: bool,
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Train X with stock `caffe train`, the update in Python.

    Injects X into the run directory (the YAML's run_dir, or runs/NAME) and replaces this process
    by `caffe train`: log, signals and exit code are Caffe's own. ARGS go to Caffe as they are, for
    instance `-- --gpu=0 --sigint_effect=snapshot`.
    """
    gc.disable()  # this process becomes another before what it imports is garbage

    from caffe_pysgd.audit.plan import plan_audit, size_warning, write_manifest
    from caffe_pysgd.files import lock_folder
    from caffe_pysgd.hosts.in_net.convert import is_neutral, write_neutral_state
    from caffe_pysgd.hosts.in_net.inject import write_injected
    from caffe_pysgd.hosts.ranks.launch import (
        mpi_command,
        mpi_environment,
        shown,
        supervise,
        threads_each,
        with_ranks,
        write_ranks,
    )
    from caffe_pysgd.run.outputs import own_folder
    from caffe_pysgd.run.own_snapshots import (
        chosen_snapshot,
        clear_prefix,
        make_snapshot_folder,
        refuse_unfit_for_hdf5,
    )
    from caffe_pysgd.run.resolve import resolve
    from caffe_pysgd.run.resolved import write_resolved
    from caffe_pysgd.run.start import check_snapshot, check_weights
    from caffe_pysgd.stock import pycaffe
    from caffe_pysgd.stock.snapshots import is_hdf5
    from caffe_pysgd.stock.solver_file import asks_for_gpu

    arguments: List[str] = context.meta.get(_BEHIND, [])
    _refuse_own_flags(arguments)
    program = pycaffe.binary()
    run = resolve(source, iterations, level, stages_of(stage), changes, run_dir, overwrite)
    run = with_ranks(run, count_of(ranks, run)) if ranks else run
    directory = own_folder(run.directory)
    if "gpu" in map(_flag, arguments) or asks_for_gpu(run.solver):
        pycaffe.require_gpu()
    models = [check_weights(Path(model), run) for model in weights]
    snapshot = chosen_snapshot(run, snapshot, check_snapshot, partial(click.echo, err=True))
    state = check_snapshot(Path(snapshot), run) if snapshot else None
    if state:
        models = [state.learned_net]
    registered = any(is_hdf5(model) for model in models)
    audit = plan_audit(run, directory, always=True)
    refuse_unfit_for_hdf5(run)
    if said := size_warning(run, audit):
        click.echo(f"caffe-pysgd: {said}", err=True)
    make_snapshot_folder(run)
    lock_folder(directory)  # kept by the caffe that this process becomes
    if not dry_run:
        clear_prefix(run, snapshot)
    count = run.configuration.ranks.count
    if count > 1:
        solvers = write_ranks(run, directory, registered, audit)
    else:
        solvers = [write_injected(run, directory, registered, audit, in_binary=True)]
    # In the manifest alone: caffe itself is told by its flags.
    started = run.with_solver(weights=weights) if weights else run
    write_manifest(replace(started, snapshot=snapshot or ""), audit, "in-net")
    write_resolved(run, directory)
    settings = run.settings(registered)
    if state and not is_neutral(state, run, settings):
        suffix = ".h5" if registered and is_hdf5(state.learned_net) else ""
        snapshot = str(directory / f"resume.solverstate{suffix}")
        write_neutral_state(Path(snapshot), run, settings, state)
    flags = net_state_flags(level, stage)
    if snapshot:
        flags.append(f"--snapshot={snapshot}")
    if weights:
        flags.append(f"--weights={','.join(weights)}")
    flags += arguments
    environment = pycaffe.binary_environment()
    if count > 1:
        command = mpi_command(program, solvers, flags, threads_each(count))
        environment = mpi_environment(environment)
    else:
        command = [str(program), "train", f"--solver={solvers[0]}", *flags]
    if dry_run:
        click.echo(shown(command))
        return
    sys.stdout.flush()
    if count > 1:
        sys.exit(supervise(command, environment, program))
    os.execve(command[0], command, environment)


def _flag(argument: str) -> str:
    """Return the name of a flag, as gflags reads it; empty for what is none."""
    return argument.lstrip("-").split("=")[0] if argument.startswith("-") else ""


def _refuse_own_flags(arguments: List[str]) -> None:
    for argument in arguments:
        if _flag(argument) in _OWN_FLAGS:
            raise UserError(f"{argument}: belongs before the '--'")
