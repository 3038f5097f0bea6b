"""Snapshots as Caffe writes them: ``.caffemodel`` and ``.solverstate``, binary and HDF5."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from google.protobuf.internal import encoder

from caffe_pysgd import pycaffe
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import replacing

Model = Dict[str, List[np.ndarray]]

_HDF5 = ".h5"


@dataclass(frozen=True)
class SolverState:
    """What a ``.solverstate`` holds.

    Attributes:
        iteration: the number of updates done.
        current_step: the step of lr_policy ``step`` and ``multistep``.
        learned_net: the model file that belongs to it, as Caffe will look it up.
        history: one flat float32 array per history blob, in the solver's order.
        rule, names: the update rule and what the history blobs are, if caffe-pysgd wrote it;
            Caffe's own files do not say, and Caffe skips over them.
    """

    iteration: int
    current_step: int
    learned_net: Path
    history: List[np.ndarray]
    rule: str = ""
    names: Tuple[str, ...] = ()


def read_model(path: Path) -> Model:
    """Return a model's blobs by layer name, each flat float32.

    HDF5 keeps a shared blob with its owner only; with the others it is empty here.

    Raises:
        UserError: there is no such file, or it is not a model.
    """
    what = "model (.caffemodel)"
    if is_hdf5(path):
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
    if is_hdf5(path):
        with _open_hdf5(path, what) as file:
            learned_net = file["learned_net"][()]
            if isinstance(learned_net, bytes):
                learned_net = learned_net.split(b"\0")[0].decode()
            return SolverState(
                int(file["iter"][()]),
                int(file["current_step"][()]),
                Path(learned_net),
                _numbered(file["history"]),
                *_read_note(file.attrs.get(_NOTE, "")),
            )
    state = _read_message(path, pycaffe.messages().SolverState(), what)
    if not state.HasField("iter"):
        raise _not_a(path, what)
    return SolverState(
        state.iter,
        state.current_step,
        Path(state.learned_net),
        [_values(blob) for blob in state.history],
        *_read_note(_noted(state)),
    )


def write_solver_state(path: Path, state: SolverState, shapes: Sequence[Tuple[int, ...]]) -> None:
    """Write a ``.solverstate``, or a ``.solverstate.h5``, as Caffe's solvers do.

    Args:
        path: its name; ``.h5`` at its end makes it HDF5.
        state: what goes into it.
        shapes: the shape of each history blob.

    Raises:
        UserError: it cannot be written.
    """
    if path.suffix == _HDF5:
        with replacing(path) as beside, hdf5_file(beside, "w") as file:
            file["iter"] = np.array([state.iteration], np.int32)
            # C reads a string up to its terminator, which HDF5's own padding would leave out.
            file["learned_net"] = np.bytes_(str(state.learned_net).encode() + b"\0.")
            file["current_step"] = np.array([state.current_step], np.int32)
            history = file.create_group("history")
            for number, (values, shape) in enumerate(zip(state.history, shapes)):
                history[str(number)] = values.reshape(shape)
            file.attrs[_NOTE] = _note(state)
        return
    message = pycaffe.messages().SolverState(
        iter=state.iteration,
        learned_net=str(state.learned_net),
        current_step=state.current_step,
    )
    for values, shape in zip(state.history, shapes):
        set_blob(message.history.add(), values, shape)
    with replacing(path) as beside:
        beside.write_bytes(message.SerializeToString() + _note_field(_note(state)))


# What the history is goes into a field that SolverState does not have (an attribute in HDF5): a
# parser that does not know it, such as Caffe's, skips it.
_NOTE = "caffe-pysgd"
_NOTE_FIELD = 2000


def _note_field(note: str) -> bytes:
    """Return the note as a length-delimited protobuf field."""
    content = note.encode()
    return bytes(encoder.TagBytes(_NOTE_FIELD, 2) + encoder._VarintBytes(len(content)) + content)


def _noted(state: Any) -> str:
    for field in state.UnknownFields():
        if field.field_number == _NOTE_FIELD:
            note: str = field.data.decode()
            return note
    return ""


def _note(state: SolverState) -> str:
    return json.dumps({"rule": state.rule, "names": state.names})


def _read_note(note: str) -> Tuple[str, Tuple[str, ...]]:
    if not note:
        return "", ()
    fields = json.loads(note)
    return fields["rule"], tuple(fields["names"])


def set_blob(blob: Any, values: np.ndarray, shape: Sequence[int]) -> None:
    """Fill a ``BlobProto``."""
    blob.shape.dim.extend(shape)
    blob.data.extend(values.tolist())


def add_diffs(path: Path, net: Any) -> None:
    """Add to a model what ``snapshot_diff`` adds: the diff of every blob of a pycaffe net."""
    layers = list(zip(net._layer_names, net.layers))
    if is_hdf5(path):
        with hdf5_file(path, "a") as file:
            for name, layer in layers:
                group = file.create_group(f"diff/{name}")
                for number, blob in enumerate(layer.blobs):
                    group[str(number)] = np.array(blob.diff)
        return
    model = read_model_message(path)
    for message, (_, layer) in zip(model.layer, layers):
        for proto, blob in zip(message.blobs, layer.blobs):
            proto.diff.extend(np.ravel(blob.diff).tolist())
    path.write_bytes(model.SerializeToString())


def read_model_message(path: Path) -> Any:
    """Return the ``NetParameter`` in a binary ``.caffemodel``.

    Raises:
        UserError: there is no such file, or it is not a model.
    """
    return _read_message(path, pycaffe.messages().NetParameter(), "model (.caffemodel)")


def is_hdf5(path: Path) -> bool:
    """Return whether a snapshot is HDF5, by what is in it.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def _open_hdf5(path: Path, what: str) -> Iterator[Any]:
    try:
        with hdf5_file(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise _not_a(path, what) from error


def hdf5_file(path: Path, mode: str) -> Any:
    """Open an HDF5 file.

    Raises:
        UserError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: is HDF5; that takes h5py (pip install h5py)") from error
    return h5py.File(path, mode)


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
