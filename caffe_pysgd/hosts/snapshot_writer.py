"""Stock snapshots of the hosts in Python: writing them, and going on from one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Tuple

import numpy as np

from caffe_pysgd.files import replacing
from caffe_pysgd.run.own_snapshots import refuse_unfit_for_hdf5
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.snapshots import SolverState, add_diffs, snapshot_names, write_solver_state
from caffe_pysgd.update import NATIVE_NAMES, Updater
from caffe_pysgd.update.policies.plateau import PlateauState


def write_snapshot(run: Run, net: Net, updater: Updater, iteration: int) -> Tuple[Path, Path]:
    """Write ``.caffemodel`` and ``.solverstate`` as the native solver does; return both.

    Raises:
        UserError: one of them cannot be written, and nothing is left half-written; or HDF5 cannot
            hold the net.
    """
    refuse_unfit_for_hdf5(run, net._layer_names)
    log = pycaffe.compiled().log
    model, state = snapshot_names(run.solver.snapshot_prefix, iteration, run.hdf5)
    kind = "HDF5" if run.hdf5 else "binary proto"
    log(f"Snapshotting to {kind} file {model}")
    with replacing(model) as beside:
        _check_space(run, net, beside)
        (net.save_hdf5 if run.hdf5 else net.save)(str(beside))
        if run.solver.snapshot_diff:
            add_diffs(beside, net)
    log(f"Snapshotting solver state to {kind} file {state}")
    settings = run.settings()
    layout = settings.state_layout()
    history = [updater.states[index][slot] for index, slot in layout]
    shapes = [run.parameters[index].shape for index, _ in layout]
    if run.rule not in NATIVE_NAMES:
        # Caffe counts the blobs, and must not take these for the state of a rule of its own.
        while len(history) in (len(run.parameters), 2 * len(run.parameters)):
            history, shapes = [*history, np.zeros(1, np.float32)], [*shapes, (1,)]
    names = tuple(settings.state_names())
    step, seen = updater.current_step, updater.plateau
    held = SolverState(iteration, step, model, history, run.rule, names, *seen)
    write_solver_state(state, held, shapes)
    return model, state


def _check_space(run: Run, net: Net, path: Path) -> None:
    """Check that a model can be written whole: Caffe aborts the process, or does not notice.

    Raises:
        OSError: the disk is full, or the file would be larger than allowed.
    """
    blobs = [blob for layer in net.layers for blob in layer.blobs]
    values = sum(blob.count for blob in blobs) * (2 if run.solver.snapshot_diff else 1)
    around = run.net.ByteSize() + 4096 * (1 + len(net.layers) + len(blobs))
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 4 * values + around)
        file.truncate(0)


def adopt_state(run: Run, updater: Updater, state: SolverState) -> None:
    """Let an updater go on from what a ``.solverstate`` holds."""
    for (index, slot), values in zip(run.settings().state_layout(), state.history):
        updater.states[index][slot][...] = values
    seen = PlateauState(state.minimum_loss, state.iter_last_event)
    updater.resume(state.iteration, state.current_step, seen)
