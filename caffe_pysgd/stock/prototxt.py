"""Protobuf text, with errors that name file, line and field."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from caffe_pysgd.errors import UserError, nearest
from caffe_pysgd.stock.protobuf import text_format
from caffe_pysgd.stock.reader import NoReader, NotUTF8, Refused, read_as_caffe

Message = TypeVar("Message")

_NO_FIELD = re.compile(r'Message type "caffe\.(?P<type>\w+)" has no field named "(?P<field>\w+)"')
_TWICE = re.compile(r'Non-repeated field "(?P<field>\w+)" is specified multiple times')
_NO_VALUE = re.compile(
    r'Unknown enumeration value of "(?P<value>[-\w]+)" for field "(?P<field>\w+)"'
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NOT_UTF8 = "a string in it is not UTF-8; save the file as UTF-8"


def read_text(path: Path, empty: Message) -> Message:
    """Read a prototxt file as Caffe reads it into ``empty``, a new message, and return it.

    Where this Caffe's own reader cannot be reached, Python's reads the file.

    Raises:
        UserError: the file is missing, is not text, or Caffe refuses it; line and column are
            named, and for an unknown field the nearest known one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if b"\0" in content:
        raise UserError(f"{path}: is not a text file; a .prototxt is wanted here")
    if content.startswith(_BYTE_ORDER_MARK):
        raise UserError(
            f"{path}:1:1: begins with a byte order mark, which Caffe does not take; save the file "
            "as UTF-8 without one"
        )
    descriptor = empty.DESCRIPTOR  # type: ignore[attr-defined]
    try:
        empty.ParseFromString(read_as_caffe(path, descriptor.name))  # type: ignore[attr-defined]
        return empty
    except Refused as refused:
        where, what = str(path), _explain(refused.what, descriptor)
        if refused.line is not None:
            where += f":{refused.line}:{refused.column}"
            what = _quote(what, content, refused.line)
        raise UserError(f"{where}: {what}") from refused
    except NotUTF8 as error:
        raise UserError(f"{path}: {_NOT_UTF8}") from error
    except NoReader as error:
        _say_once(
            f"Caffe's own reader of prototxt files cannot be reached ({error}); Python's reads "
            "them, which takes and refuses other escapes and signs"
        )
        return _read_in_python(path, content, empty)


@lru_cache(maxsize=None)
def _say_once(line: str) -> None:
    print(f"caffe-pysgd: {line}", file=sys.stderr)


def _read_in_python(path: Path, content: bytes, empty: Message) -> Message:
    try:
        # Caffe does not mind in which encoding a comment is.
        text = content.decode("utf-8", "surrogateescape")
        return text_format.Parse(text, empty)  # type: ignore[no-any-return]
    except text_format.ParseError as error:
        place, _, what = " ".join(str(error).splitlines()).partition(" : ")
        if re.search("[\udc80-\udcff]", what):
            what = _NOT_UTF8
        reason = _explain(what.rstrip("."), empty.DESCRIPTOR)  # type: ignore[attr-defined]
        raise UserError(f"{path}:{place}: {reason}") from error


def to_text(message: Any) -> str:
    """Return the message as prototxt; a float as the fewest digits that read back the same bits."""
    text: str = text_format.MessageToString(message)
    return text


def _explain(what: str, descriptor: Any) -> str:
    unknown, twice, enum = (pattern.search(what) for pattern in (_NO_FIELD, _TWICE, _NO_VALUE))
    if unknown:
        return _explain_field(descriptor, unknown["type"], unknown["field"])
    if twice:
        return f"'{twice['field']}' is given twice"
    if enum:
        allowed = ", ".join(_enum_values(descriptor, enum["field"]))
        return f"{enum['field']}: '{enum['value']}' is not allowed here; expected one of {allowed}"
    return what.rstrip(".")


def _quote(what: str, content: bytes, number: int) -> str:
    """Add the line that is meant, where the reason does not name a field."""
    if "'" in what:
        return what
    if what.endswith("got:"):
        return f"{what} the end of the file"
    line = content.split(b"\n")[number - 1].decode(errors="replace").strip()
    return f"{what}, in: {line}"


def _explain_field(descriptor: Any, type_name: str, field: str) -> str:
    """Say what is wrong with an unknown field of the message type of that name."""
    types = descriptor.file.message_types_by_name
    if type_name == "SolverParameter" and field in types["NetParameter"].fields_by_name:
        return f"'{field}' belongs into a net file; a solver file is wanted here"
    if type_name == "NetParameter" and field in types["SolverParameter"].fields_by_name:
        return f"'{field}' belongs into a solver file; a net file is wanted here"
    known = types[type_name].fields_by_name if type_name in types else ()
    hint = nearest(field, known) or "; see caffe.proto for its fields"
    return f"{type_name} has no field '{field}'{hint}"


def _enum_values(descriptor: Any, name: str) -> list[str]:
    """Return what the fields of that name can be, in whatever message they are."""
    types = descriptor.file.message_types_by_name.values()
    fields = [kind.fields_by_name[name] for kind in types if name in kind.fields_by_name]
    values = [value.name for field in fields if field.enum_type for value in field.enum_type.values]
    return list(dict.fromkeys(values))
