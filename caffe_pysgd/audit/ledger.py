"""The ledger: what is hashed, in which bytes, and how one hash follows from another.

Each iteration's hash is SHA-256 over ``caffe-pysgd iteration``, a line feed, the hash before it
(its 32 bytes), and then the rows that belong to it, table by table. The hash before the first is
the session's: over ``caffe-pysgd session``, a line feed, the last hash of the session before (32
zeros for the first), the session's row and its parameters. What follows the last iteration is
covered by ``closing`` in the same way.

Rows are packed column by column, in the order of their key: the table's name, a space, the number
of rows and a line feed; then each column of ``schema.COLUMNS`` but ``session``, ``previous``,
``hash`` and ``closing``: whole numbers as little-endian int64, real numbers as little-endian
float64, texts as their lengths in bytes (int64) and then their UTF-8. Where NULL is allowed, one
byte for each row comes first, 1 for a value and 0 for NULL, and only the values follow.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from itertools import compress
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

from caffe_pysgd.audit.schema import COLUMNS, IN_BETWEEN, OF_AN_UPDATE

Row = Tuple[Any, ...]

NO_HASH = "0" * 64

_NOT_HASHED = ("session", "previous", "hash", "closing")

HASHED: Dict[str, List[str]] = {
    table: [name for name in columns if name not in _NOT_HASHED]
    for table, columns in COLUMNS.items()
}
HASHED["sessions"] = ["session", "started", "start_iteration", "manifest"]

IN_ITERATION = ("iterations", *OF_AN_UPDATE, *IN_BETWEEN)

Rows = Mapping[str, Sequence[Row]]
"""By table its rows: the columns of ``HASHED``, in the order of the key."""


def session_hash(previous: str, session: Row, parameters: Sequence[Row]) -> str:
    """Return the hash that a session's chain starts with.

    Args:
        previous: the last hash of the session before, or ``NO_HASH``.
        session, parameters: their rows, the columns of ``HASHED``.
    """
    rows = {"sessions": [session], "parameters": parameters}
    return _chained("session", previous, rows, ("sessions", "parameters"))


def iteration_hash(previous: str, rows: Rows) -> str:
    """Return the hash of an iteration from the one before and from all its rows."""
    return _chained("iteration", previous, rows, IN_ITERATION)


def hash_of_packed(previous: str, tables: Mapping[str, Tuple[int, Sequence[bytes]]]) -> str:
    """Return the same hash from (number of rows, ``packed_columns``) of each table that has any."""
    digest = _begun("iteration", previous)
    for table in IN_ITERATION:
        if table in tables:
            count, columns = tables[table]
            digest.update(b"".join([_heading(table, count), *columns]))
    return str(digest.hexdigest())


def closing_hash(previous: str, rows: Rows, ended: str) -> str:
    """Return the hash of what follows the last iteration; ``ended`` is empty until it did."""
    digest = hashlib.sha256(bytes.fromhex(_chained("closing", previous, rows, IN_BETWEEN)))
    digest.update(ended.encode())
    return digest.hexdigest()


def weights_root(leaves: Iterable[Tuple[str, str]]) -> str:
    """Return the hash of all weights from (name, SHA-256 of its data) of each parameter.

    It is SHA-256 over ``caffe-pysgd weights``, a line feed, and for each parameter in Caffe's order
    its name, a line feed, and the 32 bytes.
    """
    digest = hashlib.sha256(b"caffe-pysgd weights\n")
    for name, sha256 in leaves:
        digest.update(name.encode() + b"\n" + bytes.fromhex(sha256))
    return digest.hexdigest()


def array_hash(array: Any) -> str:
    """Return the SHA-256 of an array's bytes: float32, little-endian, in C order."""
    return hashlib.sha256(memoryview(array).cast("B")).hexdigest()


def _chained(kind: str, previous: str, rows: Rows, tables: Iterable[str]) -> str:
    digest = _begun(kind, previous)
    for table in tables:
        if rows.get(table):
            digest.update(packed(table, rows[table]))
    return str(digest.hexdigest())


def _begun(kind: str, previous: str) -> Any:
    digest = hashlib.sha256(f"caffe-pysgd {kind}\n".encode())
    digest.update(bytes.fromhex(previous))
    return digest


def packed(table: str, rows: Sequence[Row]) -> bytes:
    """Return rows of a table as the bytes that are hashed.

    Raises:
        struct.error, TypeError, ValueError: a value is not of its column's kind.
    """
    return b"".join([_heading(table, len(rows)), *packed_columns(table, zip(*rows))])


def _heading(table: str, rows: int) -> bytes:
    return f"{table} {rows}\n".encode()


def packed_columns(table: str, columns: Iterable[Row]) -> List[bytes]:
    """Return the columns of ``HASHED`` as the bytes that are hashed.

    Raises:
        struct.error, TypeError, ValueError: a value is not of its column's kind.
    """
    return [pack(column) for pack, column in zip(_packers(table), columns)]


@lru_cache(maxsize=None)
def _packers(table: str) -> Tuple[Callable[[Row], bytes], ...]:
    return tuple(_PACKERS[COLUMNS[table][name]] for name in HASHED[table])


def _whole(column: Row) -> bytes:
    return struct.pack(f"<{len(column)}q", *column)


def _real(column: Row) -> bytes:
    return struct.pack(f"<{len(column)}d", *column)


def _text(column: Row) -> bytes:
    joined = "".join(column)
    if joined.isascii():  # the usual case, several times as fast
        return struct.pack(f"<{len(column)}q", *map(len, column)) + joined.encode()
    texts = [text.encode("utf-8", "surrogateescape") for text in column]
    return struct.pack(f"<{len(texts)}q", *map(len, texts)) + b"".join(texts)


def _or_null(pack: Callable[[Row], bytes]) -> Callable[[Row], bytes]:
    def packed(column: Row) -> bytes:
        present = [value is not None for value in column]
        return bytes(present) + pack(tuple(compress(column, present)))

    return packed


_PACKERS = {
    "i": _whole,
    "r": _real,
    "t": _text,
    "R": _or_null(_real),
    "T": _or_null(_text),
}
