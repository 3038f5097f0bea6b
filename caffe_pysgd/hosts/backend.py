"""A native solver as scaffolding: Caffe's nets, with its update neutralised.

The two hosts in Python, the hook and the drop-in solver, let Caffe build its nets the way a solver
does (so that random numbers fall as they do there), and update the weights themselves.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional, Tuple, Union

import numpy as np
from google.protobuf import text_format

from caffe_pysgd.audit.plan import default_run_dir, plan_audit, statement
from caffe_pysgd.audit.recorder import Recorder
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import replacing
from caffe_pysgd.hosts.neutral import neutral_solver
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import AuditSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.prototxt import to_text
from caffe_pysgd.stock.snapshots import SolverState, add_diffs, snapshot_names, write_solver_state
from caffe_pysgd.update import NATIVE_NAMES, Updater

Source = Union[str, Path, Any]


def resolve_source(source: Source) -> Run:
    """Return the run that a solver file, a YAML or a ``SolverParameter`` describes.

    Raises:
        UserError: anything that would stop the run later.
    """
    if isinstance(source, (str, os.PathLike)):
        return resolve(Path(source), level=None)
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        path = Path(directory, "solver.prototxt")
        message = type(source)()
        message.CopyFrom(source)
        if not message.HasField("snapshot_prefix"):
            message.snapshot_prefix = "snapshot"
        path.write_text(text_format.MessageToString(message), encoding="utf-8")
        return resolve(path, level=None)


def neutral_files(run: Run, directory: Path) -> Path:
    """Write the solver and net files of the scaffolding; return the solver file.

    Caffe takes no snapshots by itself: they would hold no history.
    """
    net_path, solver_path = directory / "net.prototxt", directory / "solver.prototxt"
    net_path.write_text(to_text(run.net), encoding="utf-8")
    solver = neutral_solver(run, net_path)
    solver.train_state.CopyFrom(run.state)
    solver.snapshot = 0
    solver.snapshot_after_train = False
    solver_path.write_text(to_text(solver), encoding="utf-8")
    return solver_path


def learnable_blobs(run: Run, net: Any) -> List[Any]:
    """Return the blobs of the run's learnable parameters, in Caffe's order."""
    layers = dict(zip(net._layer_names, net.layers))
    return [layers[p.layer].blobs[p.index] for p in run.parameters]


def outputs(net: Any) -> List[Tuple[str, np.float32, float]]:
    """Return the net's outputs, value by value: name, value, loss weight."""
    names, blobs, weights = net._blob_names, net._blobs, net._blob_loss_weights
    return [
        (names[index], value, weights[index])
        for index in net._outputs
        for value in np.ravel(blobs[index].data)
    ]


def write_snapshot(run: Run, net: Any, updater: Updater, iteration: int) -> Tuple[Path, Path]:
    """Write ``.caffemodel`` and ``.solverstate`` as the native solver does; return both.

    Raises:
        UserError: one of them cannot be written; nothing is left half-written.
    """
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
    held = SolverState(iteration, updater.current_step, model, history, run.rule, names)
    write_solver_state(state, held, shapes)
    return model, state


def _check_space(run: Run, net: Any, path: Path) -> None:
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
    updater.resume(state.iteration, state.current_step)


def check_snapshot_prefix(run: Run) -> None:
    """Check that snapshots can be written, as Caffe does before training.

    Raises:
        UserError: their folder is not there or not writable.
    """
    folder = Path(run.solver.snapshot_prefix).parent
    if run.solver.snapshot and not os.access(folder, os.W_OK):
        raise UserError(
            f"{run.source}: snapshot_prefix: found '{run.solver.snapshot_prefix}'; the folder "
            f"{folder} is not there or not writable"
        )


def begin_recording(
    run: Run, host: str, updater: Updater, audit: Optional[AuditSettings] = None
) -> Optional[Recorder]:
    """Return a recorder of a Python host's update, if one is wanted: of a kind, or by the YAML."""
    audit = audit or plan_audit(run, default_run_dir(run))
    if audit is None:
        return None
    settings = replace(run.settings(), audit=audit)
    recorder = Recorder(settings, host, pycaffe.compiled().log, statement(run))
    recorder.updater = updater
    updater.observers.append(recorder)
    return recorder
