"""Whether a snapshot's file was written to its end, told without reading what is in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def is_complete(path: Path) -> bool:
    """Return whether a ``.caffemodel`` or ``.solverstate`` ends where its content says.

    Only the lengths in a file are read, so that it takes no time and memory even of a large one. A
    process that was killed, or whose disk was full, leaves a file that fails this.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(8) == _HDF5_SIGNATURE:
                return _end_of_hdf5(file) <= size
            file.seek(0)
            return size > 0 and _fields_end_at(file, size)
    except (OSError, ValueError):
        return False


def _end_of_hdf5(file: BinaryIO) -> int:
    """Return the address of the end that the superblock names ("Disk Format", HDF5 1.8)."""
    head = file.read(40)
    start = 32 if head[:1] in (b"\x00", b"\x01") else 20
    if len(head) < start + 8:
        raise ValueError
    return int.from_bytes(head[start : start + 8], "little")


def _fields_end_at(file: BinaryIO, size: int) -> bool:
    """Return whether the outermost fields of a protobuf message end where the file does."""
    while file.tell() < size:
        kind = _varint(file) & 7
        if kind == _VARINT:
            _varint(file)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, os.SEEK_CUR)
        elif kind == _LENGTH:
            length = _varint(file)  # first: reading it moves on
            file.seek(length, os.SEEK_CUR)
        else:
            return False
    return file.tell() == size


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError
