"""Protobuf text, with errors that name file, line and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format

from caffe_pysgd.errors import UserError, nearest

Message = TypeVar("Message")

_PLACE = re.compile(r"^(?P<line>\d+):(?P<column>\d+) : ")
_NO_FIELD = re.compile(r'Message type "caffe\.(?P<type>\w+)" has no field named "(?P<field>\w+)"')


def read_text(path: Path, empty: Message) -> Message:
    """Parse a prototxt file into ``empty``, a new message, and return it.

    Raises:
        UserError: the file is missing, is not text, or does not parse; the line is named, and for
            an unknown field the nearest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file; a .prototxt is wanted here") from error
    try:
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
    unknown = _NO_FIELD.search(what)
    if not unknown:
        return f"{where}: {what}"
    known = _fields(message.DESCRIPTOR, unknown["type"])
    return f"{where}: {unknown['type']} has no field '{unknown['field']}'" + (
        nearest(unknown["field"], known) or "; see caffe.proto for its fields"
    )


def _fields(descriptor: Any, type_name: str) -> list[str]:
    """Return the field names of the message type of that name, looked up beside ``descriptor``."""
    sibling = descriptor.file.message_types_by_name.get(type_name)
    return [field.name for field in sibling.fields] if sibling else []
