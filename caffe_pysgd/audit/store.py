"""Reading an audit: also while it is written, and after the writer was killed."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Type
from urllib.parse import quote

import numpy as np

from caffe_pysgd.audit.schema import APPLICATION_ID, COLUMNS, VERSION
from caffe_pysgd.errors import UserError

DEFAULT_NAME = "audit.sqlite"

FIGURES = ("l2", "mean", "min", "max", "zeros", "nonfinite")

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
            connection = self._connect("mode=ro")
        except sqlite3.Error:
            # On a medium that nobody can write to there is nobody to wait for, either.
            try:
                connection = self._connect("immutable=1")
            except sqlite3.Error as error:
                raise UserError(f"{self.path}: cannot be read as an audit: {error}") from error
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

    def _connect(self, how: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.resolve()))}?{how}", uri=True, timeout=10
        )
        try:
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
        """Close the file."""
        self.connection.close()

    def query(self, sql: str, values: Sequence[Any] = ()) -> List[Tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return self.connection.execute(sql, tuple(values)).fetchall()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path}: cannot be read as an audit: {error}") from error

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

    # -- single rows ------------------------------------------------------------------------------

    def last_iteration(self) -> Optional[int]:
        """Return the number of the last update recorded, or None."""
        ((last,),) = self.query("SELECT max(iteration) FROM current_iterations")
        return None if last is None else int(last)

    def rows(self, table: str, **key: Any) -> Iterator[Dict[str, Any]]:
        """Return rows of one of the tables as dictionaries, of whichever session led to now."""
        columns = list(COLUMNS[table])
        where = " AND ".join(f"{name} = ?" for name in key) or "1"
        order = ", ".join(columns[:3])
        sql = f"SELECT {', '.join(columns)} FROM current_{table} WHERE {where} ORDER BY {order}"
        for row in self.query(sql, list(key.values())):
            yield dict(zip(columns, row))
