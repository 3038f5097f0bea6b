"""A native solver as a backend: Caffe's nets, with its update neutralised.

The two hosts in Python, the hook and the drop-in solver, let Caffe build its nets the way a solver
does (so that random numbers fall as they do there), and update the weights themselves.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np

from caffe_pysgd.audit.plan import plan_audit
from caffe_pysgd.hosts.neutral import neutral_solver
from caffe_pysgd.run.outputs import NET, SOLVER
from caffe_pysgd.run.own_snapshots import refuse_unfit_for_hdf5, refuse_unknown_score
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import AuditSettings, UpdateSettings
from caffe_pysgd.stock.protobuf import text_format
from caffe_pysgd.stock.protocols import Blob, Net
from caffe_pysgd.stock.prototxt import to_text

Source = Union[str, bytes, Path, Any]


def resolve_source(source: Source) -> Run:
    """Return the run that a solver file, a YAML or a ``SolverParameter`` describes.

    Raises:
        UserError: anything that would stop the run later.
    """
    if isinstance(source, (str, bytes, os.PathLike)):
        return resolve(Path(os.fsdecode(source)), level=None, in_copy=True)
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        path = Path(directory, SOLVER)
        message = type(source)()
        message.CopyFrom(source)
        if not message.HasField("snapshot_prefix"):
            message.snapshot_prefix = "snapshot"
        path.write_text(text_format.MessageToString(message), encoding="utf-8")
        return resolve(path, level=None, in_copy=True)


def neutral_files(run: Run, directory: Path) -> Path:
    """Write the solver and net files of the backend; return the solver file.

    Caffe takes no snapshots by itself: they would hold no history.
    """
    net_path, solver_path = directory / NET, directory / SOLVER
    net_path.write_text(to_text(run.net), encoding="utf-8")
    solver = neutral_solver(run, net_path)
    solver.train_state.CopyFrom(run.state)
    solver.snapshot = 0
    solver.snapshot_after_train = False
    solver_path.write_text(to_text(solver), encoding="utf-8")
    return solver_path


def learnable_blobs(run: Run, net: Net) -> List[Blob]:
    """Return the blobs of the run's learnable parameters, in Caffe's order."""
    layers = dict(zip(net._layer_names, net.layers))
    return [layers[p.layer].blobs[p.index] for p in run.parameters]


def refuse_unfit_nets(run: Run, net: Net, test_nets: Sequence[Net]) -> None:
    """Check that the snapshots that a run takes can hold its net, and be told apart.

    Raises:
        SettingError: HDF5 cannot hold it, or there is no score by which one is the best.
    """
    if run.takes_snapshots:
        refuse_unfit_for_hdf5(run, net._layer_names)
    refuse_unknown_score(run, {name for net in test_nets for name, _, _ in outputs(net)})


def outputs(net: Net) -> List[Tuple[str, np.float32, float]]:
    """Return the net's outputs, value by value: name, value, loss weight."""
    names, blobs, weights = net._blob_names, net._blobs, net._blob_loss_weights
    return [
        (names[index], value, weights[index])
        for index in net._outputs
        for value in np.ravel(blobs[index].data)
    ]


def settings_of(run: Run, audit: Optional[AuditSettings] = None) -> UpdateSettings:
    """Return what a host in Python is told: with an audit, or with what the YAML asks for."""
    audit = audit or plan_audit(run, run.directory)
    return replace(run.settings(), audit=audit, loggers=run.loggers(run.directory))
