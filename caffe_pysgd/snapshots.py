"""Snapshots as Caffe writes them: ``.caffemodel`` and ``.solverstate``, binary and HDF5."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np

from caffe_pysgd import pycaffe
from caffe_pysgd.errors import UserError

Model = Dict[str, List[np.ndarray]]


@dataclass(frozen=True)
class SolverState:
    """What a ``.solverstate`` holds.

    Attributes:
        iteration: the number of updates done.
        current_step: the step of lr_policy ``step`` and ``multistep``.
        learned_net: the model file that belongs to it, as Caffe will look it up.
        history: one flat float32 array per history blob, in the solver's order.
    """

    iteration: int
    current_step: int
    learned_net: Path
    history: List[np.ndarray]


def read_model(path: Path) -> Model:
    """Return a model's blobs by layer name, each flat float32.

    HDF5 keeps a shared blob with its owner only; with the others it is empty here.

    Raises:
        UserError: there is no such file, or it is not a model.
    """
    what = "model (.caffemodel)"
    if _is_hdf5(path):
        with _open_hdf5(path, what) as file:
            return {layer: _numbered(blobs) for layer, blobs in file["data"].items()}
    net = _read_message(path, pycaffe.messages().NetParameter(), what)
    # Models of before Caffe 1.0 hold V1 layers, and those may wrap V0 layers.
    old = [layer.layer if layer.HasField("layer") else layer for layer in net.layers]
    model = {layer.name: [_values(blob) for blob in layer.blobs] for layer in (*net.layer, *old)}
    if not any(model):
        raise _not_a(path, what)
    return model


def read_solver_state(path: Path) -> SolverState:
    """Return what a ``.solverstate`` holds.

    Raises:
        UserError: there is no such file, or it is not a solver state.
    """
    what = "solver state (.solverstate)"
    if _is_hdf5(path):
        with _open_hdf5(path, what) as file:
            learned_net = file["learned_net"][()]
            return SolverState(
                int(file["iter"][()]),
                int(file["current_step"][()]),
                Path(learned_net.decode() if isinstance(learned_net, bytes) else learned_net),
                _numbered(file["history"]),
            )
    state = _read_message(path, pycaffe.messages().SolverState(), what)
    if not state.HasField("iter"):
        raise _not_a(path, what)
    return SolverState(
        state.iter,
        state.current_step,
        Path(state.learned_net),
        [_values(blob) for blob in state.history],
    )


def _is_hdf5(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def _open_hdf5(path: Path, what: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: is HDF5; reading it takes h5py (pip install h5py)") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise _not_a(path, what) from error


def _numbered(group: Any) -> List[np.ndarray]:
    """Return the arrays that a group holds under their numbers."""
    found = {int(name): np.array(array, np.float32).ravel() for name, array in group.items()}
    return [
        found.get(number, np.empty(0, np.float32)) for number in range(max(found, default=-1) + 1)
    ]


def _read_message(path: Path, empty: Any, what: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # protobuf only warns of what follows a group's end
            empty.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, whose module differs between versions
        raise _not_a(path, what) from error
    return empty


def _not_a(path: Path, what: str) -> UserError:
    return UserError(f"{path}: is not a whole Caffe {what}")


def _values(blob: Any) -> np.ndarray:
    return np.array(blob.data, dtype=np.float32)
