"""Damaged snapshots, read as a run does that starts from one; what is not refused, Caffe loads.

    python damaged_snapshots.py state|model SOLVER COUNT FILE...

HDF5's library and Caffe may end the process over a damaged file: run it in a process of its own.
It prints, as JSON, what went wrong besides refusals, and how many files Caffe was given.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterator, List, Sequence

import numpy as np
from google.protobuf.message import Message

sys.path.insert(0, str(Path(__file__).parent.parent))
from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.hook import take_over
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.start import check_native_snapshot, check_weights
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import is_hdf5
from helpers.mutations import SEED, mutations

TOKENS = [
    b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"\x80" * 10, b"\x08\x01", b"\x12\xff",
    b"{", b"[]", b'{"rule": 3}', b"99999999", b"\xff\xfe", b"TREE", b"SNOD", b"OHDR", b"HEAP",
]  # fmt: skip
NUMBERS = [-1, 0, 1, 2, 2**31 - 1, -(2**31), 2**31, 2**62, 1e308, float("nan")]
TEXTS = ["", "x", "\0", "{", "[]", '{"rule": "adam", "names": 3}', "../" * 30, "9" * 400]
NAMES = ["99999999", "-1", "x", "0", "1", "data", "history", "iter", "\xe9"]


def damaged(corpus: Sequence[Path], count: int, path: Path) -> Iterator[int]:
    """Write so many damaged files, one after the other: bytes are changed, or what they say is."""
    bytes_changed = mutations([file.read_bytes() for file in corpus], TOKENS, -(-count // 2))
    rng = random.Random(SEED)
    for number in range(count):
        if number % 2:
            sound = rng.choice(corpus)
            path.write_bytes(sound.read_bytes())
            (change_hdf5 if is_hdf5(sound) else change_message)(path, rng)
        else:
            path.write_bytes(next(bytes_changed))
        yield number


def change_message(path: Path, rng: random.Random) -> None:
    """Set, add to or clear one to three fields of a binary file's messages."""
    messages = pycaffe.messages()
    kind = messages.SolverState if "solverstate" in path.name else messages.NetParameter
    message = kind.FromString(path.read_bytes())
    for _ in range(rng.randint(1, 3)):
        change_field(message, rng)
    path.write_bytes(message.SerializePartialToString())


def change_field(message: Message, rng: random.Random) -> None:
    held = [value for _, field in message.ListFields() for value in _messages(field)]
    if held and rng.random() < 0.8:
        change_field(rng.choice(held), rng)
        return
    field = rng.choice(message.DESCRIPTOR.fields)
    if rng.random() < 0.3:
        message.ClearField(field.name)
        return
    value = getattr(message, field.name)
    many = field.label == field.LABEL_REPEATED
    if field.message_type:
        value.add() if many else value.SetInParent()
        return
    if field.enum_type:
        new: Any = rng.choice(field.enum_type.values).number
    else:
        new = rng.choice(TEXTS if field.cpp_type == field.CPPTYPE_STRING else NUMBERS)
    try:
        if many and value and rng.random() < 0.5:
            value[rng.randrange(len(value))] = new
        elif many:
            value.append(new)
        else:
            setattr(message, field.name, new)
    except (TypeError, ValueError):  # a number that such a field cannot hold
        message.ClearField(field.name)


def _messages(field: Any) -> List[Message]:
    values = [field] if isinstance(field, Message) or not hasattr(field, "__len__") else field
    return [value for value in values if isinstance(value, Message)]


def change_hdf5(path: Path, rng: random.Random) -> None:
    """Remove, rename or replace one to three objects of an HDF5 file."""
    import h5py

    with h5py.File(path, "a") as file:
        for _ in range(rng.randint(1, 3)):
            names: List[str] = []
            file.visit(names.append)
            name = rng.choice(names or ["x"])
            new = f"{name.rpartition('/')[0]}/{rng.choice(NAMES)}"
            kind = rng.randrange(4)
            if kind == 0 and name in file:
                del file[name]
            elif kind == 1 and name in file and new not in file:
                file.move(name, new)
            else:
                where = rng.choice((name, new))
                if where in file:
                    del file[where]
                _add(file, where, rng)


def _add(file: Any, name: str, rng: random.Random) -> None:
    import h5py

    kinds: List[Callable[[], Any]] = [
        lambda: file.create_group(name),
        lambda: file.create_dataset(name, (2**40,), "f4"),
        lambda: file.create_dataset(name, (2**31, 2), "f4", chunks=(1, 2)),
        lambda: file.create_dataset(name, data=np.zeros(rng.choice((0, 1, 3, 18)), np.float32)),
        lambda: file.create_dataset(name, data=np.zeros((0, 3), np.float64)),
        lambda: file.create_dataset(name, data=np.ones((1, 1, 1), np.complex64)),
        lambda: file.create_dataset(name, data=np.array([rng.choice(NUMBERS[:5])], np.int32)),
        lambda: file.create_dataset(name, data=np.array([rng.choice(NUMBERS[:8])], np.float64)),
        lambda: file.create_dataset(name, data=np.array([2**31, 1], np.int64)),
        lambda: file.create_dataset(name, data=rng.choice(("x", "x.caffemodel", "", "9" * 400))),
        lambda: file.create_dataset(name, data=h5py.Empty("f4")),
        lambda: file.create_dataset(name, data=np.bytes_(b"x\0y")),
        lambda: file.__setitem__(name, h5py.SoftLink("/" + rng.choice(NAMES))),
        lambda: file.__setitem__(name, h5py.ExternalLink("no.h5", "/data")),
        lambda: file.attrs.__setitem__("caffe-pysgd", rng.choice(["{", "[]", "3", b"\xff", 7])),
    ]  # fmt: skip
    with suppress(ValueError, OSError, RuntimeError):  # its parent is no group any more
        rng.choice(kinds)()


def load_in_a_child(load: Callable[[], None]) -> str:
    """Return how Caffe's end came, or what was raised; nothing for neither or a refusal."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            load()
        except UserError:
            pass
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return f"Caffe ended: status {status}" if status else ""


def main() -> None:
    kind, solver, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    corpus = [Path(name) for name in sys.argv[4:]]
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run, host = resolve(solver), take_over(solver)
    path = Path("damaged." + {"state": "solverstate", "model": "caffemodel"}[kind])
    if is_hdf5(corpus[0]):
        path = Path(f"{path}.h5")  # Caffe goes by the name

    def resume() -> None:
        host.restore(str(path))  # Caffe itself is given what that writes anew
        host.step(1)

    check: Any = {"state": check_native_snapshot, "model": check_weights}[kind]
    load = {"state": resume, "model": lambda: host.net.copy_from(str(path))}[kind]
    found, loaded = [], 0
    for number in damaged(corpus, count, path):
        Path("last").write_text(str(number))
        problem = ""
        try:
            check(path, run)
            loaded += 1
            problem = load_in_a_child(load)
        except UserError as error:
            if len(str(error)) > 600 or len(str(error).splitlines()) > 1:
                problem = f"a message of {len(str(error))} characters"
        except BaseException as error:
            problem = f"{type(error).__name__}: {str(error)[:100]}"
        if problem:
            found.append(f"{number}: {problem}")
            Path(f"kept-{number}").write_bytes(path.read_bytes())
    print(json.dumps({"found": found, "loaded": loaded}))


if __name__ == "__main__":
    main()
