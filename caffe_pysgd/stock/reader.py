"""Caffe's own reader of prototxt files.

The readers of protobuf text in C++ and in Python disagree: on escapes, on signs, on what ends a
string. What counts is what this Caffe makes of a file, so its own ``ReadProtoFromTextFile``
(``src/caffe/util/io.cpp``) reads it, and its ``WriteProtoToBinaryFile`` hands the values over.
"""

from __future__ import annotations

import ctypes
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.answers import Question
from caffe_pysgd.stock.helper import load_caffe_meanwhile, run_in_copy, run_with_caffe
from caffe_pysgd.stock.this_caffe import identity, is_known

_READ = "_ZN5caffe21ReadProtoFromTextFileEPKcPN6google8protobuf7MessageE"
_WRITE = "_ZN5caffe22WriteProtoToBinaryFileERKN6google8protobuf7MessageEPKc"
# The constructor of a message, by the versions of protobuf that have it.
_CONSTRUCTORS: Tuple[Tuple[str, Tuple[Optional[int], ...]], ...] = (
    ("_ZN5caffe{}C1Ev", ()),  # up to 3.11
    ("_ZN5caffe{}C1EPN6google8protobuf5ArenaE", (None,)),  # from 3.12
    ("_ZN5caffe{}C1EPN6google8protobuf5ArenaEb", (None, 0)),  # from 3.16
)
_ROOM = 1 << 16  # far more than the object of a message takes

_READ_IT, _REFUSED, _NO_READER, _NOT_UTF8 = 0, 3, 4, 5

_ERROR = re.compile(
    r"Error parsing text-format caffe\.\w+: (?:(?P<line>\d+):(?P<column>\d+): )?(?P<what>.*)"
)


class Refused(Exception):
    """Caffe does not take the file.

    Attributes:
        line, column: where, counted from 1; None if Caffe does not say.
        what: Caffe's reason.
    """

    def __init__(self, log: str) -> None:
        error = _ERROR.search(log)
        self.line = int(error["line"]) if error and error["line"] else None
        self.column = int(error["column"]) if error and error["line"] else None
        self.what = error["what"].strip() if error else pycaffe.failure_reason(log)
        super().__init__(self.what)


class NotUTF8(Exception):
    """Caffe takes the file, but a string in it is not UTF-8, and Python cannot hold it."""


class NoReader(Exception):
    """Caffe's reader cannot be reached from outside; the message says why."""


def read_as_caffe(path: Path, kind: str) -> bytes:
    """Return the message of a prototxt file in protobuf's binary form.

    Args:
        path: the file.
        kind: ``SolverParameter`` or another message type of caffe.proto.

    Raises:
        Refused: Caffe refuses the file.
        NotUTF8: a string in it is not UTF-8.
        NoReader: this Caffe does not export what is needed.
    """
    content = path.read_bytes()
    question = _question(kind, content)
    kept = question.kept()
    if kept is not None:
        return kept
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        answer = Path(directory, "message")
        task = (_read_here, kind, str(path), str(answer))
        outcome = run_in_copy(*task) if pycaffe.is_loaded() else None
        outcome = outcome or run_with_caffe(*task)
        if outcome.status == _REFUSED:
            raise Refused(outcome.log)
        if outcome.status == _NOT_UTF8:
            raise NotUTF8
        if outcome.status != _READ_IT:
            raise NoReader(pycaffe.failure_reason(outcome.log))
        message = answer.read_bytes()
    if path.read_bytes() == content:
        question.keep(message)
    return message


def prepare_to_read(path: Path, kind: str) -> None:
    """Let Caffe be loaded while the caller goes on, if it will be asked what a file says.

    Args:
        path, kind: as for :func:`read_as_caffe`.
    """
    with suppress(OSError, UserError):  # what is wrong, the reader will say
        if not (is_known() and _question(kind, path.read_bytes()).kept()):
            load_caffe_meanwhile()


def _question(kind: str, content: bytes) -> Question:
    return Question(_read_here, identity(), kind, content)


def _read_here(kind: str, path: str, answer: str) -> None:
    library = ctypes.CDLL(pycaffe.library_path())
    message = ctypes.create_string_buffer(_ROOM)
    try:
        read, write = getattr(library, _READ), getattr(library, _WRITE)
        _construct(library, kind, message)
    except AttributeError as missing:
        print(f"caffe-pysgd: {missing}")
        raise SystemExit(_NO_READER) from missing
    read.restype = ctypes.c_bool
    if not read(path.encode(), message):
        raise SystemExit(_REFUSED)
    write(message, answer.encode())
    read_back = getattr(pycaffe.messages(), kind).FromString(Path(answer).read_bytes())
    if not _is_utf8(read_back):
        raise SystemExit(_NOT_UTF8)


def _construct(library: ctypes.CDLL, kind: str, room: ctypes.Array) -> None:
    """Construct an empty message of that type in the room for it.

    Raises:
        AttributeError: no known constructor is exported.
    """
    for pattern, arguments in _CONSTRUCTORS:
        name = pattern.format(f"{len(kind)}{kind}")
        if hasattr(library, name):
            getattr(library, name)(room, *arguments)
            return
    raise AttributeError(f"caffe::{kind} has no constructor that is known")


def _is_utf8(message: Any) -> bool:
    """Return whether Python can hold every string of a message."""
    try:
        for field, value in message.ListFields():
            elements = value if isinstance(value, Sequence) else [value]
            if field.type == field.TYPE_MESSAGE and not all(map(_is_utf8, elements)):
                return False
            # Some of protobuf's implementations give bytes, some raise.
            if field.type == field.TYPE_STRING and not all(isinstance(e, str) for e in elements):
                return False
    except UnicodeDecodeError:
        return False
    return True
