"""``caffe-pysgd train``: inject, then become the stock `caffe train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import List, Optional, Tuple

import click

from caffe_pysgd import pycaffe
from caffe_pysgd.cli.options import (
    iterations_option,
    net_state_flags,
    net_state_options,
    own_folder,
    run_dir_option,
    source_argument,
    stages_of,
    start_options,
)
from caffe_pysgd.errors import UserError
from caffe_pysgd.resume import check_snapshot, check_weights
from caffe_pysgd.run import resolve

_OWN_FLAGS = ("solver", "snapshot", "weights", "level", "stage", "iterations", "run-dir")


@click.command()
@source_argument
@run_dir_option
@iterations_option
@start_options
@net_state_options
@click.argument("arguments", nargs=-1, metavar="[-- ARGS]")
def train(
    source: Path,
    run_dir: Optional[Path],
    iterations: Optional[int],
    snapshot: Optional[str],
    weights: Optional[str],
    level: int,
    stage: str,
    arguments: Tuple[str, ...],
) -> None:
    """Train X with stock `caffe train`, the update in Python.

    Injects X into the run directory (the YAML's run_dir, or runs/NAME) and replaces this process
    by `caffe train`: log, signals and exit code are Caffe's own. ARGS go to Caffe as they are, for
    instance `-- --gpu=0 --sigint_effect=snapshot`.
    """
    _refuse_own_flags(arguments)
    program = pycaffe.binary()
    run = resolve(source, iterations, level, stages_of(stage))
    models: List[Path] = []
    if snapshot:
        models = [check_snapshot(Path(snapshot), run)]
    elif weights:
        models = [check_weights(Path(model.strip())) for model in weights.split(",")]
    directory = run_dir or run.configuration.run_dir or Path("runs", source.stem)
    from_hdf5 = any(model.suffix == ".h5" for model in models)
    solver = run.write_injected(own_folder(directory), registered=from_hdf5)
    command = [str(program), "train", f"--solver={solver}", *net_state_flags(level, stage)]
    if snapshot:
        command.append(f"--snapshot={snapshot}")
    if weights:
        command.append(f"--weights={weights}")
    sys.stdout.flush()
    os.execve(program, [*command, *arguments], pycaffe.binary_environment())


def _refuse_own_flags(arguments: Tuple[str, ...]) -> None:
    for argument in arguments:
        flag = argument.lstrip("-").split("=")[0]
        if argument.startswith("-") and flag in _OWN_FLAGS:
            mend = "is written by caffe-pysgd" if flag == "solver" else "belongs before the '--'"
            raise UserError(f"{argument}: {mend}")
