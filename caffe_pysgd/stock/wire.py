"""Single fields in protobuf's binary form, of numbers that the message's type does not have.

The classes of protobuf give no access to these in every version: that of 4.21 has none.
"""

from __future__ import annotations

import struct
from typing import Dict, Tuple, Union

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5

Content = Union[bytes, int]


def field(number: int, content: bytes) -> bytes:
    """Return a field with its length before it, to be put behind a message."""
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def float_field(number: int, value: float) -> bytes:
    """Return a field of type ``float``."""
    return _varint(number << 3 | _FOUR_BYTES) + struct.pack("<f", value)


def integer_field(number: int, value: int) -> bytes:
    """Return a field of type ``int32``, of a value that is not negative."""
    return _varint(number << 3 | _VARINT) + _varint(value)


def find_fields(message: bytes, *numbers: int) -> Dict[int, Content]:
    """Return the last content of each of some fields that a valid message has: bytes, or a whole.

    The contents of fields of eight or four bytes are these bytes.
    """
    found: Dict[int, Content] = {}
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            if number in numbers:
                found[number] = value
            continue
        # The begin and the end of a group are tags alone.
        size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, 0)
        if kind == _LENGTH:
            size, at = _read_varint(message, at)
        if size and number in numbers:
            found[number] = message[at : at + size]
        at += size
    return found


def as_float(content: Content) -> float:
    """Return the number in a field of type ``float``; NaN if it is of another type."""
    if not isinstance(content, bytes) or len(content) != 4:
        return float("nan")
    value: float = struct.unpack("<f", content)[0]
    return value


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def _read_varint(message: bytes, at: int) -> Tuple[int, int]:
    """Return the number that begins at a place, and the place behind it."""
    value = shift = 0
    while message[at] > 127:
        value |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
    return value | message[at] << shift, at + 1
