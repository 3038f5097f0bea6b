"""Protobuf text, with errors that name file, line and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format

from caffe_pysgd.errors import UserError, nearest

Message = TypeVar("Message")

_PLACE = re.compile(r"^(?P<line>\d+):(?P<column>\d+) : ")
_TWICE = re.compile(r'should not have multiple "(?P<field>\w+)" fields')
_NO_VALUE = re.compile(r'Enum type "caffe\.(?P<type>[\w.]+)" has no value named (?P<value>\w+)')
_NO_FIELD = re.compile(r'Message type "caffe\.(?P<type>\w+)" has no field named "(?P<field>\w+)"')


def read_text(path: Path, empty: Message) -> Message:
    """Parse a prototxt file into ``empty``, a new message, and return it.

    Raises:
        UserError: the file is missing, is not text, or does not parse; the line is named, and for
            an unknown field the nearest known one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if b"\0" in content:
        raise UserError(f"{path}: is not a text file; a .prototxt is wanted here")
    try:
        # Caffe does not mind in which encoding a comment is.
        text = content.decode("utf-8", "surrogateescape")
        return text_format.Parse(text, empty)  # type: ignore[no-any-return]
    except text_format.ParseError as error:
        raise UserError(_explain(path, str(error), empty)) from error


def to_text(message: Any) -> str:
    """Return the message as prototxt; a float as the fewest digits that read back the same bits."""
    text: str = text_format.MessageToString(message)
    return text


def _explain(path: Path, error: str, message: Any) -> str:
    place = _PLACE.match(error)
    where = f"{path}:{place['line']}" if place else str(path)
    what = _PLACE.sub("", error).splitlines()[0].rstrip(".")
    if re.search("[\udc80-\udcff]", what):
        return f"{where}: is not UTF-8 text"
    unknown, twice, enum = (pattern.search(what) for pattern in (_NO_FIELD, _TWICE, _NO_VALUE))
    if unknown:
        return f"{where}: {_explain_field(message.DESCRIPTOR, unknown['type'], unknown['field'])}"
    if twice:
        return f"{where}: '{twice['field']}' is given twice"
    if enum:
        allowed = _enum_values(message.DESCRIPTOR, enum["type"])
        return f"{where}: '{enum['value']}' is not allowed here; allowed are {', '.join(allowed)}"
    return f"{where}: {what}"


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


def _enum_values(descriptor: Any, type_name: str) -> list[str]:
    *outer, name = type_name.split(".")
    place = descriptor.file.message_types_by_name[outer[0]] if outer else descriptor.file
    return [value.name for value in place.enum_types_by_name[name].values]
