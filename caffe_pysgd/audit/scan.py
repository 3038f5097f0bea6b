"""Every row of an audit in one pass: its hashes checked, its series thinned for a drawing.

A large audit has millions of rows, and Python pays for each of their cells. So a row is read once
for both, by as many processes as there are cores, and with APSW where it is installed, which reads
twice as fast as the standard library.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import numpy as np

from caffe_pysgd.audit.ledger import HASHED, hash_of_packed, packed_columns
from caffe_pysgd.audit.schema import COLUMNS, IN_BETWEEN, KEYS, OF_AN_UPDATE
from caffe_pysgd.audit.series import Points, Series, distinct_iterations
from caffe_pysgd.audit.store import Store

Progress = Callable[[int, int], None]
"""Called with how many iterations of how many were read."""

KEYED: Dict[str, Tuple[str, ...]] = {
    "updates": ("parameter",),
    "figures": ("parameter", "quantity"),
}
"""The tables that have series of each parameter, and what tells these apart."""

Key = Tuple[Any, ...]

_TOGETHER = 50  # iterations that a process reads before it asks for more
_WORTH_A_PROCESS = 100_000  # rows
_ROWS_OF_A_PAGE = 70  # of the figures, which are most of an audit
_MOST_PROCESSES = 8


class Chain(NamedTuple):
    """The iterations of a session whose hashes were found to be right.

    Attributes:
        begins, ends: the hash before the first, and the last one's.
        length, last: how many iterations, and the last one; None without any.
    """

    begins: Optional[str]
    ends: Optional[str]
    length: int
    last: Optional[int]


@dataclass(frozen=True)
class Scanned:
    """What one pass over an audit found.

    Attributes:
        chains: by session; None where something is not as it was recorded, or nobody looked.
        series: by table, key and column.
    """

    chains: Optional[Dict[int, Chain]]
    series: Dict[str, Dict[Key, Dict[str, Series]]]


def scan(
    store: Store,
    verify: bool = True,
    points: Optional[Points] = None,
    progress: Optional[Progress] = None,
) -> Scanned:
    """Read an audit once, as it is at one moment; the store goes on with that moment.

    Args:
        store: the audit.
        verify: whether to compute the hash of each iteration.
        points: at which the series of ``KEYED`` are wanted; None for none.
        progress: is told how far it is.
    """
    store.hold()
    sessions = [_Recorded(store, session.session) for session in store.sessions()]
    tables = tuple(
        table
        for table in (*OF_AN_UPDATE, *IN_BETWEEN)
        if (verify or table in KEYED) and store.query(f"SELECT 1 FROM {table} LIMIT 1")
    )
    thinned = None if points is None else _Thinned(points)
    parts = [part for one in sessions for part in one.parts(tables, verify, points)]
    total = sum(len(part.iterations) for part in parts)
    # Each row must belong to an iteration, and each iteration follow the one before it.
    intact, done = verify and all(one.is_complete(tables) for one in sessions), 0
    with in_processes(store, _rows(store), _read) as run:
        for part, (right, pieces) in zip(parts, run(parts)):
            intact = intact and right
            if thinned is not None:
                thinned.add(pieces)
            done += len(part.iterations)
            if progress:
                progress(done, total)
    return Scanned(
        {one.session: one.chain for one in sessions} if intact else None,
        {} if thinned is None else thinned.series(),
    )


def _rows(store: Store) -> int:
    """Return how many rows an audit may have, without looking at them."""
    ((pages,),) = store.query("PRAGMA page_count")
    return int(pages) * _ROWS_OF_A_PAGE


class _Part(NamedTuple):
    """What a process reads: iterations of one session that follow each other.

    Attributes:
        after: the iteration recorded before them; None for none.
        points: of each iteration the point that it is drawn in; -1 for none.
    """

    session: int
    after: Optional[int]
    iterations: List[int]
    points: List[int]
    tables: Tuple[str, ...]
    verify: bool


class _Piece(NamedTuple):
    """What a part has of one table at one point; ``last`` only if it has the point's last row."""

    table: str
    point: int
    at: int
    keys: Tuple[Tuple[Any, ...], ...]
    low: np.ndarray
    high: np.ndarray
    last: np.ndarray


_Answer = Tuple[bool, List[_Piece]]


class _Recorded:
    """A session: its iterations, and what belongs to none of them."""

    def __init__(self, store: Store, session: int) -> None:
        self._store, self.session = store, session
        sql = (
            "SELECT iteration, previous, hash FROM iterations WHERE session = ? ORDER BY iteration"
        )
        rows = store.query(sql, [session])
        self.iterations = [row[0] for row in rows]
        self._linked = all(row[1] == before[2] for row, before in zip(rows[1:], rows))
        begins, ends = (rows[0][1], rows[-1][2]) if rows else (None, None)
        self.chain = Chain(begins, ends, len(rows), self.iterations[-1] if rows else None)

    def parts(
        self, tables: Tuple[str, ...], verify: bool, points: Optional[Points]
    ) -> Iterator[_Part]:
        if points is None:
            drawn = [-1] * len(self.iterations)
        else:
            drawn = points.places(self.session, self.iterations)
        for start in range(0, len(self.iterations), _TOGETHER):
            end = start + _TOGETHER
            after = self.iterations[start - 1] if start else None
            yield _Part(
                self.session, after, self.iterations[start:end], drawn[start:end], tables, verify
            )

    def is_complete(self, tables: Sequence[str]) -> bool:
        """Return whether each row belongs to an iteration, and these are linked."""
        known = set(self.iterations)
        # Of the other tables, all up to an iteration is read with it.
        return self._linked and all(
            known.issuperset(distinct_iterations(self._store, table, self.session))
            for table in tables
            if table in OF_AN_UPDATE
        )


# -- in a process of its own ----------------------------------------------------------------------


class _Reader:
    """Reads parts from a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def read(self, part: _Part) -> _Answer:
        pieces = _Pieces()
        right = part.verify
        before = part.after
        for iteration, point in zip(part.iterations, part.points):
            packed: Dict[str, Tuple[int, Sequence[bytes]]] = {}
            for table in part.tables:
                columns = self._columns(table, part.session, before, iteration)
                if not columns:
                    continue
                drawn = point >= 0 and table in KEYED
                try:
                    packed[table] = len(columns[0]), packed_columns(table, columns)
                except Exception:  # no value of its column's kind: the ledger's check says where
                    right = False
                    if drawn:
                        raise
                if drawn:
                    pieces.add(table, point, iteration, columns, packed[table][1])
            if part.verify:
                own, previous, row = self._iteration(part.session, iteration)
                try:
                    packed["iterations"] = 1, packed_columns("iterations", zip(row))
                    right = right and own == hash_of_packed(previous, packed)
                except Exception:
                    right = False
            before = iteration
        return right, pieces.closed()

    def _iteration(self, session: int, iteration: int) -> Tuple[str, str, Tuple[Any, ...]]:
        values = (session, iteration)
        ((own, previous, *row),) = self._connection.execute(
            _SELECT["iterations"], values
        ).fetchall()
        return own, previous, tuple(row)

    def _columns(
        self, table: str, session: int, before: Optional[int], iteration: int
    ) -> List[Tuple[Any, ...]]:
        """Return the rows that an iteration's hash covers, column by column."""
        if table in IN_BETWEEN:
            begin = float("-inf") if before is None else before
            values = (session, begin, iteration, before)
            return list(zip(*self._connection.execute(_SELECT[table], values).fetchall()))
        rows = self._connection.execute(_SELECT[table], (session, iteration)).fetchall()
        # Not asked for, as it is the same in all rows, of which there are millions.
        return [(iteration,) * len(rows), *zip(*rows)] if rows else []


def _selection(table: str) -> str:
    columns, of = HASHED[table], "iteration = ?"
    if table == "iterations":
        columns = ["hash", "previous", *columns]
    elif table in IN_BETWEEN:
        of = "iteration BETWEEN ? AND ? AND iteration IS NOT ?"
    else:
        columns, of = columns[1:], "iteration = ? AND typeof(iteration) = 'integer'"
    order = ", ".join(KEYS[table])
    return f"SELECT {', '.join(columns)} FROM {table} WHERE session = ? AND {of} ORDER BY {order}"


_SELECT = {table: _selection(table) for table in ("iterations", *OF_AN_UPDATE, *IN_BETWEEN)}


class _Pieces:
    """The smallest and largest values of each point, as the iterations go by."""

    def __init__(self) -> None:
        self._open: Dict[str, _Piece] = {}
        self._closed: List[_Piece] = []
        self._keys: Dict[str, Sequence[bytes]] = {}  # packed, which compares the fastest

    def add(
        self,
        table: str,
        point: int,
        iteration: int,
        columns: Sequence[Tuple[Any, ...]],
        packed: Sequence[bytes],
    ) -> None:
        first = 1 + len(KEYED[table])
        values = np.empty((len(columns) - first, len(columns[0])))
        for place, name in enumerate(HASHED[table][first:]):
            kind = COLUMNS[table][name]
            if kind == "R":
                values[place] = np.array(columns[first + place], np.float64)  # None becomes NaN
            else:
                values[place] = np.frombuffer(
                    packed[first + place], "<i8" if kind == "i" else "<f8"
                )
        piece = self._open.get(table)
        if piece is None or piece.point != point or self._keys[table] != packed[1:first]:
            if piece is not None:
                self._closed.append(piece)
            keys = tuple(columns[1:first])
            self._keys[table] = packed[1:first]
            piece = _Piece(table, point, iteration, keys, values.copy(), values.copy(), values)
        else:
            np.fmin(piece.low, values, out=piece.low)
            np.fmax(piece.high, values, out=piece.high)
        self._open[table] = piece._replace(at=iteration, last=values)

    def closed(self) -> List[_Piece]:
        return [*self._closed, *self._open.values()]


def _read(connection: Any, part: _Part) -> _Answer:
    return _Reader(connection).read(part)


# -- the processes --------------------------------------------------------------------------------

Task = TypeVar("Task")
Result = TypeVar("Result")

_ENDS_WITH_ITS_PARENT = 1  # PR_SET_PDEATHSIG: a child whose parent was killed waits for ever

_own: List[Any] = []  # a process's connection, and what it does


@contextmanager
def in_processes(
    store: Store, rows: int, work: Callable[[Any, Task], Result]
) -> Iterator[Callable[[Iterable[Task]], Iterator[Result]]]:
    """Give a function that does work in turn: here, or in several processes where it pays.

    Args:
        store: the audit.
        rows: how many are read, about.
        work: is given a connection that has ``execute(sql, values).fetchall()``, and a task.
    """
    if rows < _WORTH_A_PROCESS:
        yield lambda tasks: (work(store.connection, task) for task in tasks)
        return
    many = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))
    # Forked, as a program that shows a report need not guard its main module. A child opens the
    # file anew: a connection must not be used on both sides of a fork.
    context = multiprocessing.get_context("fork")
    with context.Pool(many, _begin, (store.address, work)) as pool:
        yield lambda tasks: pool.imap(_work, tasks)


def _begin(address: str, work: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends the pool
    ctypes.CDLL(None).prctl(_ENDS_WITH_ITS_PARENT, signal.SIGKILL)
    gc.disable()  # rows are many small tuples, and none of them is in a cycle
    _own[:] = [_connect(address), work]


def _work(task: Any) -> Any:
    connection, work = _own
    return work(connection, task)


def _connect(address: str) -> Any:
    try:
        apsw = import_module("apsw")
    except ImportError:
        return sqlite3.connect(address, uri=True, timeout=10)
    # Without mutexes, which a process of one thread can spare: they take a third of the time.
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOMUTEX
    connection = apsw.Connection(address, flags=flags)
    connection.set_busy_timeout(10_000)
    return connection


# -- put together again ---------------------------------------------------------------------------


class _Thinned:
    """The series of all parameters, from the pieces."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._places: Dict[str, Dict[Key, int]] = {table: {} for table in KEYED}
        self._known: Dict[Tuple[str, Tuple[Any, ...]], np.ndarray] = {}
        self._values: Dict[str, List[np.ndarray]] = {}

    def add(self, pieces: Sequence[_Piece]) -> None:
        for piece in pieces:
            places = self._of(piece.table, piece.keys)
            low, high, last = self._values[piece.table]
            at = (slice(None), places, piece.point)
            low[at] = np.fmin(low[at], piece.low)
            high[at] = np.fmax(high[at], piece.high)
            if piece.at == self._points.at[piece.point]:
                last[at] = piece.last

    def _of(self, table: str, keys: Tuple[Any, ...]) -> np.ndarray:
        found = self._known.get((table, keys))
        if found is None:
            places = self._places[table]
            found = np.array([places.setdefault(key, len(places)) for key in zip(*keys)])
            self._known[table, keys] = found
            self._grow(table, len(places))
        return found

    def _grow(self, table: str, keys: int) -> None:
        columns = len(HASHED[table]) - 1 - len(KEYED[table])
        before = self._values.get(table)
        self._values[table] = [
            np.full((columns, keys, len(self._points.at)), np.nan) for _ in range(3)
        ]
        if before is not None:
            for old, new in zip(before, self._values[table]):
                new[:, : old.shape[1]] = old

    def series(self) -> Dict[str, Dict[Key, Dict[str, Series]]]:
        found: Dict[str, Dict[Key, Dict[str, Series]]] = {table: {} for table in KEYED}
        for table, (low, high, last) in self._values.items():
            names = HASHED[table][1 + len(KEYED[table]) :]
            for key, place in self._places[table].items():
                found[table][key] = {
                    name: Series(last[i, place], low[i, place], high[i, place])
                    if self._points.is_thinned
                    else Series(last[i, place])
                    for i, name in enumerate(names)
                }
        return found
