"""Single fields in protobuf's binary form, of numbers that the message's type does not have.

The classes of protobuf give no access to these in every version: that of 4.21 has none.
"""

from __future__ import annotations

from typing import Tuple

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def field(number: int, content: bytes) -> bytes:
    """Return a field with its length before it, to be put behind a message."""
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def find_field(message: bytes, number: int) -> bytes:
    """Return the content of such a field in a valid message; empty if it has none."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind == _LENGTH:
            size, at = _read_varint(message, at)
            if tag >> 3 == number:
                return message[at : at + size]
        # The begin and the end of a group are tags alone.
        at += {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, size)
    return b""


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
