"""Snapshots as Caffe writes them: ``.caffemodel`` and ``.solverstate``, binary and HDF5."""

from __future__ import annotations

import json
import math
import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple, TypeVar

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.files import replacing
from caffe_pysgd.stock import pycaffe, wire
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.snapshot_names import HDF5_SUFFIX as _HDF5
from caffe_pysgd.stock.snapshot_names import snapshot_names as snapshot_names

_MODEL, _STATE = "model (.caffemodel)", "solver state (.solverstate)"

_Read = TypeVar("_Read")


class Model(Dict[str, List[Floats]]):
    """A model's blobs by layer name, each flat float32.

    Attributes:
        shapes: the blobs' shapes.
        legacy: the blobs whose shape is written as models of before Caffe 1.0 have it, with four
            axes throughout: layer and index.
        keeps_with_owners: HDF5 keeps a shared blob with its owner only; with the others it is empty
            here, or missing at the end.
        notes: what the layers were told (``python_param.param_str``), for those that were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Dict[str, List[Tuple[int, ...]]] = {}
        self.legacy: Set[Tuple[str, int]] = set()
        self.keeps_with_owners = False
        self.notes: Dict[str, str] = {}

    def add(self, layer: str, blobs: Sequence[Floats]) -> None:
        """Add a layer with its blobs in their shapes."""
        self[layer] = [blob.ravel() for blob in blobs]
        self.shapes[layer] = [blob.shape for blob in blobs]


_NO_LOSS = np.finfo(np.float32).max


@dataclass(frozen=True)
class SolverState:
    """What a ``.solverstate`` holds.

    Attributes:
        iteration: the number of updates done.
        current_step: the step of lr_policy ``step`` and ``multistep``.
        learned_net: the model file that belongs to it, as Caffe will look it up.
        history: one flat float32 array per history blob, in the solver's order.
        shapes: how each is stored, where it was read: Caffe takes an HDF5 blob of no other shape.
        minimum_loss, iter_last_event: what lr_policy ``plateau`` has seen of the loss, as the forks
            of Caffe that have it write it.
        rule, names: the update rule and what the history blobs are, if caffe-pysgd wrote it;
            Caffe's own files do not say, and Caffe skips over them.
    """

    iteration: int
    current_step: int
    learned_net: Path
    history: List[Floats]
    rule: str = ""
    names: Tuple[str, ...] = ()
    minimum_loss: np.float32 = _NO_LOSS
    iter_last_event: int = 0
    shapes: Tuple[Tuple[int, ...], ...] = ()


def read_model(path: Path) -> Model:
    """Return what a ``.caffemodel`` holds.

    Raises:
        UserError: there is no such file, or it is not a model.
    """
    if is_hdf5(path):
        return _survived(path, _MODEL, _hdf5_model)
    model = Model()
    net = _read_message(path, pycaffe.messages().NetParameter(), _MODEL)
    if net.layer and net.layers:  # Caffe ends the process over both
        raise _not_a(path, _MODEL)
    # Models of before Caffe 1.0 hold V1 layers, and those may wrap V0 layers.
    old = [layer.layer if layer.HasField("layer") else layer for layer in net.layers]
    for layer in (*net.layer, *old):
        for number, blob in enumerate(layer.blobs):
            _check_blob(path, f"layer '{layer.name}'", number, blob)
        model.add(os.fsdecode(layer.name), [_values(blob) for blob in layer.blobs])
        legacy = {(layer.name, i) for i, blob in enumerate(layer.blobs) if _is_legacy(blob)}
        model.legacy |= legacy
    for layer in net.layer:
        if layer.python_param.param_str:
            model.notes[layer.name] = os.fsdecode(layer.python_param.param_str)
    if not any(model):
        raise _not_a(path, _MODEL)
    return model


def read_solver_state(path: Path) -> SolverState:
    """Return what a ``.solverstate`` holds.

    Raises:
        UserError: there is no such file, or it is not a solver state.
    """
    if is_hdf5(path):
        return _survived(path, _STATE, _hdf5_state)
    state = _read_message(path, pycaffe.messages().SolverState(), _STATE)
    if not state.HasField("iter"):
        raise _not_a(path, _STATE)
    for number, blob in enumerate(state.history):
        _check_blob(path, "history", number, blob)
    history = [_values(blob) for blob in state.history]
    found = (state.iter, state.current_step, state.learned_net, history)
    beyond = wire.find_fields(path.read_bytes(), _MINIMUM_LOSS, _ITER_LAST_EVENT, _NOTE_FIELD)
    held = _solver_state(path, *found, beyond.get(_NOTE_FIELD, ""))
    if _MINIMUM_LOSS not in beyond:
        return held
    loss, event = wire.as_float(beyond[_MINIMUM_LOSS]), beyond.get(_ITER_LAST_EVENT, 0)
    return _with_plateau(path, held, loss, event if isinstance(event, int) else -1)


def _with_plateau(path: Path, state: SolverState, loss: float, event: int) -> SolverState:
    if not np.isfinite(loss) or not 0 <= event < 2**31:
        found = f"{loss} and {event}"
        allowed = "finite, and 0 or more; the file is damaged"
        raise SettingError("minimum_loss and iter_last_event", found, allowed, where=path)
    return replace(state, minimum_loss=np.float32(loss), iter_last_event=event)


def _solver_state(
    path: Path,
    iteration: int,
    current_step: int,
    learned_net: Any,
    history: List[Floats],
    note: Any,
) -> SolverState:
    learned_net = os.fsdecode(learned_net)  # protobuf gives bytes where they are no UTF-8
    for field, value in (("iter", iteration), ("current_step", current_step)):
        if not 0 <= value < 2**31:
            raise SettingError(field, value, "0 or more; the file is damaged", where=path)
    try:
        rule, names = _read_note(note)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _not_a(path, _STATE) from error
    if "\0" in learned_net:
        raise _not_a(path, _STATE)
    kept = [values.ravel() for values in history]
    if rule:  # behind what is named there may be zeros, which keep Caffe from taking the file
        kept, rest = kept[: len(names)], kept[len(names) :]
        if any(values.tolist() != [0] for values in rest):
            raise _not_a(path, _STATE)
    shapes = tuple(values.shape for values in history)
    return SolverState(iteration, current_step, Path(learned_net), kept, rule, names, shapes=shapes)


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
            if _has_plateau(state):
                file["minimum_loss"] = np.array([state.minimum_loss], np.float32)
                file["iter_last_event"] = np.array([state.iter_last_event], np.int32)
        return
    message = pycaffe.messages().SolverState(
        iter=state.iteration,
        learned_net=str(state.learned_net),
        current_step=state.current_step,
    )
    for values, shape in zip(state.history, shapes):
        set_blob(message.history.add(), values, shape)
    with replacing(path) as beside:
        beside.write_bytes(
            message.SerializeToString() + _plateau_fields(state) + _note_field(state)
        )


# What the history is goes into a field that SolverState does not have (an attribute in HDF5): a
# parser that does not know it, such as Caffe's, skips it.
_NOTE = "caffe-pysgd"
_NOTE_FIELD = 2000


def _note_field(state: SolverState) -> bytes:
    return wire.field(_NOTE_FIELD, _note(state).encode())


# The fields of SSD's Caffe, by their numbers: BVLC's does not have them.
_MINIMUM_LOSS, _ITER_LAST_EVENT = 5, 6


def _has_plateau(state: SolverState) -> bool:
    return state.minimum_loss != _NO_LOSS or state.iter_last_event > 0


def _plateau_fields(state: SolverState) -> bytes:
    if not _has_plateau(state):
        return b""
    minimum = wire.float_field(_MINIMUM_LOSS, float(state.minimum_loss))
    return minimum + wire.integer_field(_ITER_LAST_EVENT, state.iter_last_event)


def _note(state: SolverState) -> str:
    return json.dumps({"rule": state.rule, "names": state.names})


def _read_note(note: Any) -> Tuple[str, Tuple[str, ...]]:
    if not isinstance(note, (str, bytes)) or not note:
        return "", ()
    fields = json.loads(note)
    rule, names = fields["rule"], fields["names"]
    if not all(isinstance(text, str) for text in (rule, *names)):
        raise TypeError
    return rule, tuple(names)


def _check_blob(path: Path, of: str, number: int, blob: Any) -> None:
    """Check what Caffe would abort on: a shape that is none, or that its values do not fill.

    Raises:
        UserError: naming the blob.
    """
    shape = _shape(blob)
    values = len(blob.double_data) or len(blob.data)
    diffs = len(blob.double_diff) or len(blob.diff)
    count = math.prod(shape) if all(0 <= axis < 2**31 for axis in shape) else -1
    both = blob.double_data and blob.data
    if both or values != count or diffs not in (0, count):
        raise UserError(
            f"{path}: is damaged: blob {number} of {of} has {values} values and the shape "
            f"{list(shape[:8])}"
        )


def _shape(blob: Any) -> Tuple[int, ...]:
    if _is_legacy(blob):
        return blob.num, blob.channels, blob.height, blob.width
    return tuple(blob.shape.dim)


def set_blob(blob: Any, values: Floats, shape: Sequence[int]) -> None:
    """Fill a ``BlobProto``.

    The data go in as the bytes that they are on the wire; value by value it would take a second
    for ten million.
    """
    blob.shape.dim.extend(shape)
    content = np.ascontiguousarray(values, "<f4").tobytes()
    blob.MergeFromString(wire.field(_BLOB_DATA, content))


_BLOB_DATA = 5  # repeated float data = 5 [packed = true]


def _values(blob: Any) -> Floats:
    """Return a ``BlobProto``'s data in its shape, again through the bytes on the wire."""
    data_only = type(blob)()
    data_only.CopyFrom(blob)
    shape = _shape(blob)
    for field in ("shape", "diff", "double_data", "double_diff", *_OLD_SHAPE):
        data_only.ClearField(field)
    count = len(blob.data)
    if not count:
        return np.array(blob.double_data, np.float32)
    values = np.frombuffer(data_only.SerializeToString()[-4 * count :], "<f4").astype(np.float32)
    return values.reshape(shape) if math.prod(shape) == count else values


_OLD_SHAPE = ("num", "channels", "height", "width")


def _is_legacy(blob: Any) -> bool:
    return any(blob.HasField(field) for field in _OLD_SHAPE)


def add_diffs(path: Path, net: Net) -> None:
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
    return _read_message(path, pycaffe.messages().NetParameter(), _MODEL)


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


def _survived(path: Path, what: str, read: Callable[[Path], _Read]) -> _Read:
    """Return what an HDF5 file holds, once a process of its own has read it and lives.

    Raises:
        UserError: it did not, or the file is not complete.
    """
    from caffe_pysgd.stock.hdf5_trial import survives

    if not survives(read.__name__, path):
        raise _not_a(path, what)
    return read(path)


def _hdf5_model(path: Path) -> Model:
    model = Model()
    model.keeps_with_owners = True
    with _open_hdf5(path, _MODEL) as file:
        for name, blobs in file["data"].items():
            model.add(name, _numbered(blobs))
    return model


def _hdf5_state(path: Path) -> SolverState:
    with _open_hdf5(path, _STATE) as file:
        learned_net = file["learned_net"][()]
        if isinstance(learned_net, bytes):
            learned_net = learned_net.split(b"\0")[0]
        state = _solver_state(
            path,
            int(file["iter"][()].item()),
            int(file["current_step"][()].item()),
            learned_net,
            _numbered(file["history"]),
            file.attrs.get(_NOTE, ""),
        )
        if "minimum_loss" not in file:
            return state
        loss, event = (file[n][()].item() for n in ("minimum_loss", "iter_last_event"))
        return _with_plateau(path, state, float(loss), int(event))


@contextmanager
def _open_hdf5(path: Path, what: str) -> Iterator[Any]:
    try:
        with hdf5_file(path, "r") as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # h5py's own, and what an object of another kind has not
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


def _numbered(group: Any) -> List[Floats]:
    """Return the arrays that a group holds under their numbers.

    Raises:
        ValueError: a number or an array that no net has, which would take all memory.
    """
    for name, array in group.items():
        wanted, stored = 4 * int(array.size), array.id.get_storage_size()
        if int(name) not in range(_MOST_BLOBS) or wanted > _MOST_COMPRESSED * stored:
            raise ValueError
    found = {int(name): np.array(array, np.float32) for name, array in group.items()}
    return [
        found.get(number, np.empty(0, np.float32)) for number in range(max(found, default=-1) + 1)
    ]


_MOST_BLOBS, _MOST_COMPRESSED = 100_000, 1000


def _read_message(path: Path, empty: Any, what: str) -> Any:
    try:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("error")  # protobuf only warns of what follows a group's end
            empty.ParseFromString(path.read_bytes())
        if not empty.IsInitialized():  # Caffe takes no message that lacks a required field
            raise _not_a(path, what)
    except UserError:
        raise
    except Exception as error:  # protobuf's DecodeError, whose module differs between versions
        raise _not_a(path, what) from error
    return empty


@contextmanager
def _silent() -> Iterator[None]:
    """Let libprotobuf not write lines of its own, of strings that are no UTF-8, beside ours."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _not_a(path: Path, what: str) -> UserError:
    return UserError(f"{path}: is not a complete Caffe {what}")
