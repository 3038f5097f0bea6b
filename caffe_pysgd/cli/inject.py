"""``caffe-pysgd inject``: write the prototxt files, run nothing."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Optional, Tuple

import click

from caffe_pysgd.cli.options import (
    iterations_option,
    net_state_flags,
    net_state_options,
    no_user_code_option,
    run_dir_option,
    set_options,
    source_argument,
    stages_of,
)
from caffe_pysgd.errors import UserError


@click.command()
@source_argument
@run_dir_option
@iterations_option
@set_options
@net_state_options
@no_user_code_option
def inject(
    source: Path,
    run_dir: Optional[Path],
    iterations: Optional[int],
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Write X with the Python update injected; print the `caffe train` line that runs it.

    D/net.prototxt is the train net with three Python layers, D/solver.prototxt the solver that
    leaves the update to them. Everything else stays as it is: data, tests, display, snapshots.
    """
    from caffe_pysgd.audit.plan import plan_audit, write_manifest
    from caffe_pysgd.files import lock_folder
    from caffe_pysgd.hosts.in_net.inject import write_injected
    from caffe_pysgd.run.outputs import own_folder
    from caffe_pysgd.run.own_snapshots import make_snapshot_folder, refuse_unfit_for_hdf5
    from caffe_pysgd.run.resolve import resolve
    from caffe_pysgd.run.resolved import write_resolved

    run = resolve(source, iterations, level, stages_of(stage), changes, run_dir)
    if run.configuration.run_dir is None:
        raise UserError(f"{source}: names no run_dir; give --run-dir D")
    directory = own_folder(run.directory)
    configuration, keep = run.configuration, run.settings().keep
    # These need the scores.
    always = keep is not None or bool(configuration.loggers) or run.h.lr_policy == "plateau"
    audit = plan_audit(run, directory, always)
    refuse_unfit_for_hdf5(run)
    make_snapshot_folder(run)
    lock = lock_folder(directory)
    solver = write_injected(run, directory, audit=audit)
    write_manifest(run, audit, "in-net")
    write_resolved(run, directory)
    os.close(lock)
    command = ["caffe", "train", f"--solver={solver}", *net_state_flags(level, stage)]
    click.echo(_path_prefix() + shlex.join(command))


def _path_prefix() -> str:
    """Return what makes `caffe` embed this Python, or nothing where PATH does already."""
    here = os.path.dirname(sys.executable)
    first = os.environ.get("PATH", "").split(os.pathsep)[0]
    return "" if first == here else f'PATH={shlex.quote(here)}:"$PATH" '
