"""Reading an audit: also while it is written, and after the writer was killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Type
from urllib.parse import quote

import numpy as np

from caffe_pysgd.audit.lock import is_recorded
from caffe_pysgd.audit.schema import APPLICATION_ID, COLUMNS, KEYS, VERSION
from caffe_pysgd.errors import UserError

DEFAULT_NAME = "audit.sqlite"

FIGURES = ("l2", "mean", "min", "max", "zeros", "nonfinite")

_OF_A_RUN = (
    "source", "configuration", "solver", "net", "train_state", "hyperparameters", "random_seed",
    "audit", "initial_weights",
)  # fmt: skip

Series = Tuple[np.ndarray, np.ndarray]
"""Iterations (int64) and values (float64, NaN where there is none)."""


@dataclass(frozen=True)
class RecordedParameter:
    """A learnable parameter, as a session recorded it."""

    parameter: int
    name: str
    shape: Tuple[int, ...]
    count: int
    lr_mult: float
    decay_mult: float
    rule: str
    statistic: bool = False  # one of BatchNorm's, and no weight


class Session(NamedTuple):
    """One process that recorded into the file."""

    session: int
    started: str
    start_iteration: int
    ended: Optional[str]


class Store:
    """An audit, opened to be read.

    Every method but those that take a session answers from the views ``current_...``: of iterations
    that were recorded twice, because a run went on from an earlier snapshot, the later ones.

    Args:
        path: the SQLite file, or the run directory that has one called ``audit.sqlite``.

    Attributes:
        path: the file.
        address: what SQLite opened, for another connection to the same file.
        connection: for queries of one's own; it cannot write.

    Raises:
        UserError: there is none, or it is no audit.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path, DEFAULT_NAME) if Path(path).is_dir() else Path(path)
        if not self.path.is_file():
            raise UserError(f"{self.path}: there is no such file; give an audit or a run directory")
        self.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            connection = self._connect_where_possible()
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{self.path}: cannot be read as an audit: {str(error)[:200]}"
            ) from error
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            connection.close()
            raise UserError(f"{self.path}: is no audit of caffe-pysgd")
        if version != VERSION:
            connection.close()
            raise UserError(
                f"{self.path}: is an audit in format {version}, this caffe-pysgd reads {VERSION}"
            )
        return connection

    def _connect_where_possible(self) -> sqlite3.Connection:
        """Open the file as it can be: SQLite wants to write beside it, even to read it."""
        waits = self._beside("-wal").exists()
        self._left_by_a_kill = waits and not is_recorded(self.path)
        if not waits and not os.access(self.path, os.W_OK):
            return self._connect(self.path, "immutable=1")  # and nobody else writes
        try:
            return self._connect(self.path, "mode=ro")
        except sqlite3.Error:
            if not self._left_by_a_kill:
                return self._connect(self.path, "immutable=1")
        self._folder = tempfile.TemporaryDirectory(prefix="caffe-pysgd-")  # until this is gone
        copy = Path(self._folder.name, self.path.name)
        for ending in ("", "-wal"):
            shutil.copyfile(self._beside(ending), f"{copy}{ending}")
        return self._connect(copy, "mode=ro")

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _connect(self, path: Path, how: str) -> sqlite3.Connection:
        location = f"file:{quote(str(path.resolve()))}?{how}"
        self.address = location
        connection = sqlite3.connect(location, uri=True, timeout=10)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")  # its views may be a stranger's
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what SQLite made beside it to read it goes."""
        self.connection.close()
        if self._left_by_a_kill or not self._beside("-wal").exists() or is_recorded(self.path):
            return
        with suppress(sqlite3.Error):
            connection = self._connect(self.path, "mode=rw")  # the last to close it tidies up
            connection.close()

    def query(self, sql: str, values: Sequence[Any] = ()) -> List[Tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            UserError: the file is damaged.
        """
        with self._reading():
            return self.connection.execute(sql, tuple(values)).fetchall()

    def hold(self) -> None:
        """Read from now on what the file says at this moment, though a run may be writing."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")

    # -- sessions ---------------------------------------------------------------------------------

    def sessions(self) -> List[Session]:
        """Return the sessions, the oldest first."""
        sql = "SELECT session, started, start_iteration, ended FROM sessions ORDER BY session"
        return [Session(*row) for row in self.query(sql)]

    def manifest(self, session: Optional[int] = None) -> Dict[str, Any]:
        """Return what a session said of itself when it began; the last one unless told.

        Raises:
            UserError: there is no such session.
        """
        sql = "SELECT manifest FROM sessions WHERE session = ?"
        rows = self.query(sql, [self._session(session)])
        if not rows:
            raise UserError(f"{self.path}: has no session {session}")
        manifest: Dict[str, Any] = json.loads(rows[0][0])
        return manifest

    def run_manifest(self, session: int) -> Dict[str, Any]:
        """Return a session's manifest, with all that it takes to train it again.

        Raises:
            UserError: something of that is not there.
        """
        manifest = self.manifest(session)
        missing = [key for key in _OF_A_RUN if key not in manifest]
        if missing:
            raise UserError(
                f"{self.path}: the manifest of session {session} does not say {missing[0]}, which "
                "it takes to train it again"
            )
        return manifest

    def parameters(self, session: Optional[int] = None) -> List[RecordedParameter]:
        """Return the learnable parameters in Caffe's order; the last session's unless told."""
        columns = [name for name in COLUMNS["parameters"] if name != "session"]
        sql = f"SELECT {', '.join(columns)} FROM parameters WHERE session = ? ORDER BY parameter"
        statistics = self.manifest(session).get("statistics", ())
        return [
            RecordedParameter(
                index, name, tuple(json.loads(shape)), count, lr, decay, rule, name in statistics
            )
            for index, name, shape, count, lr, decay, rule in self.query(
                sql, [self._session(session)]
            )
        ]

    def _session(self, session: Optional[int]) -> int:
        if session is not None:
            return session
        ((last,),) = self.query("SELECT max(session) FROM sessions")
        if last is None:
            raise UserError(f"{self.path}: holds no session: nothing was recorded")
        return int(last)

    # -- series -----------------------------------------------------------------------------------

    def series(self, column: str) -> Series:
        """Return a column of the table ``iterations``: ``loss``, ``rate``, ``gradient_l2``, ..."""
        return self._series("iterations", column)

    def figures(self, parameter: int, quantity: str, figure: str) -> Series:
        """Return one figure of one array over time.

        Args:
            parameter: its number in Caffe's order.
            quantity: ``gradient``, ``regularized``, a slot such as ``history``, ``update``,
                ``data``.
            figure: one of ``FIGURES``.
        """
        return self._series("figures", figure, parameter=parameter, quantity=quantity)

    def updates(self, parameter: int, column: str) -> Series:
        """Return ``ratio`` or ``local_rate`` of one parameter over time."""
        return self._series("updates", column, parameter=parameter)

    def quantities(self, parameter: int) -> List[str]:
        """Return the quantities that there are figures of."""
        sql = "SELECT DISTINCT quantity FROM current_figures WHERE parameter = ? ORDER BY quantity"
        return [quantity for (quantity,) in self.query(sql, [parameter])]

    def tests(self) -> Dict[Tuple[int, str], Series]:
        """Return the mean test scores by (test net, output)."""
        outputs = self.query(
            "SELECT DISTINCT net, position, output FROM current_tests ORDER BY net, position"
        )
        scores: Dict[Tuple[int, str], Series] = {}
        for net, position, output in outputs:
            several = sum((net, output) == (n, o) for n, _, o in outputs) > 1
            name = f"{output}[{position}]" if several else output
            scores[net, name] = self._series("tests", "value", net=net, position=position)
        return scores

    def _series(self, table: str, column: str, **key: Any) -> Series:
        if column not in COLUMNS[table]:
            raise KeyError(f"the table {table} has no column {column}")
        where = " AND ".join(f"{name} = ?" for name in key) or "1"
        sql = f"SELECT iteration, {column} FROM current_{table} WHERE {where} ORDER BY iteration"
        rows = self.query(sql, list(key.values()))
        iterations = np.array([row[0] for row in rows], np.int64)
        values = [math.nan if row[1] is None else row[1] for row in rows]
        return iterations, np.array(values, np.float64)

    # -- iterations -------------------------------------------------------------------------------

    def span(self) -> Optional[Tuple[int, int]]:
        """Return the first and the last update recorded, or None."""
        ((first, last),) = self.query(
            "SELECT min(iteration), max(iteration) FROM current_iterations"
        )
        return None if first is None else (int(first), int(last))

    def iterations(self, first: int, last: int, session: Optional[int] = None) -> List[int]:
        """Return which updates from first to last were recorded, in all or by one session."""
        table, of = "current_iterations", "1"
        if session is not None:
            table, of = "iterations", f"session = {int(session)}"
        sql = f"SELECT iteration FROM {table} WHERE {of} AND iteration BETWEEN ? AND ? ORDER BY 1"
        return [iteration for (iteration,) in self.query(sql, (first, last))]

    def segments(self, first: int, last: int) -> List[Tuple[Session, int, int]]:
        """Return the sessions that led to these updates, each with its own first and last."""
        sql = (
            "SELECT session, min(iteration), max(iteration) FROM current_iterations"
            " WHERE iteration BETWEEN ? AND ? GROUP BY session ORDER BY session"
        )
        sessions = {session.session: session for session in self.sessions()}
        rows = self.query(sql, (first, last))
        return [(sessions[number], low, high) for number, low, high in rows]

    # -- rows -------------------------------------------------------------------------------------

    def rows(
        self, table: str, session: Optional[int] = None, **key: Any
    ) -> Iterator[Dict[str, Any]]:
        """Return rows of a table as dictionaries, ordered by their key.

        Args:
            table: its name.
            session: of this session alone; of whichever session led to the present weights if not
                given.
            key: values of columns.
        """
        columns = list(COLUMNS[table])
        if session is not None:
            key = {"session": session, **key}
        source = f"current_{table}" if session is None else table
        where = " AND ".join(f"{name} = ?" for name in key) or "1"
        order = ", ".join(KEYS[table])
        sql = f"SELECT {', '.join(columns)} FROM {source} WHERE {where} ORDER BY {order}"
        for row in self.query(sql, list(key.values())):
            yield dict(zip(columns, row))

    def newest(self, table: str, session: int) -> List[Dict[str, Any]]:
        """Return the rows of a session's last iteration that a table has."""
        sql = f"SELECT max(iteration) FROM {table} WHERE session = ?"
        ((last,),) = self.query(sql, [session])
        return [] if last is None else list(self.rows(table, session=session, iteration=last))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path}: cannot be read as an audit: {str(error)[:200]}"
            ) from error
