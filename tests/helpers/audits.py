"""An audit without a training: rows that look like LeNet's, chained as the recorder chains them."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from caffe_pysgd.audit.ledger import (
    HASHED,
    IN_ITERATION,
    NO_HASH,
    closing_hash,
    iteration_hash,
    session_hash,
)
from caffe_pysgd.audit.schema import COLUMNS, IN_BETWEEN, KEYS, creation

PARAMETERS = [
    ("conv1/0", (20, 1, 5, 5)),
    ("conv1/1", (20,)),
    ("ip1/0", (500, 800)),
    ("ip1/1", (500,)),
]
QUANTITIES = ("data", "gradient", "history", "regularized", "update")
ENDED = "2026-01-02T03:05:00Z"


def write_audit(path: Path, iterations: int, **settings: Any) -> Path:
    """Write an audit of one session; see ``sessions``."""
    return write_sessions(path, [dict(iterations=iterations, **settings)])


def write_sessions(path: Path, sessions: List[Dict[str, Any]]) -> Path:
    """Write an audit. Each session has: ``iterations``, ``start``, ``every``, ``seed``, ``ended``,
    ``nonfinite_at``, ``parameters``, ``manifest``, ``rule``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(creation())
    connection.execute("PRAGMA journal_mode = WAL")
    previous = NO_HASH
    for number, settings in enumerate(sessions, 1):
        writer = SessionWriter(connection, number, previous, **settings)
        for iteration in range(writer.start, writer.start + writer.iterations):
            writer.write(iteration)
        previous = writer.close()
    connection.commit()
    connection.close()
    return path


def chain_anew(connection: sqlite3.Connection) -> None:
    """Hash all of an audit again after its rows were changed, as a forger does."""
    previous = NO_HASH
    sql = f"SELECT ended, {', '.join(HASHED['sessions'])} FROM sessions ORDER BY session"
    for ended, session, *said in connection.execute(sql).fetchall():

        def rows(table: str, where: str = "1", session: int = session) -> List[Tuple[Any, ...]]:
            order = ", ".join(KEYS[table])
            what = f"{', '.join(HASHED[table])} FROM {table} WHERE session = ? AND {where}"
            return connection.execute(f"SELECT {what} ORDER BY {order}", [session]).fetchall()

        previous = session_hash(previous, (session, *said), rows("parameters"))
        connection.execute("UPDATE sessions SET hash = ? WHERE session = ?", (previous, session))
        last = -(2**62)
        for iteration, *_ in rows("iterations"):
            here, since = (
                f"iteration = {iteration}",
                f"iteration BETWEEN {last + 1} AND {iteration}",
            )
            of = {t: rows(t, since if t in IN_BETWEEN else here) for t in IN_ITERATION}
            own = iteration_hash(previous, of)
            sql = f"UPDATE iterations SET previous = ?, hash = ? WHERE session = ? AND {here}"
            connection.execute(sql, (previous, own, session))
            previous, last = own, iteration
        after = {table: rows(table, f"iteration > {last}") for table in IN_BETWEEN}
        if ended is not None or any(after.values()):
            previous = closing_hash(previous, after, ended or "")
            sql = "UPDATE sessions SET closing = ? WHERE session = ?"
            connection.execute(sql, (previous, session))


class SessionWriter:
    """One session of an audit, iteration by iteration."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        number: int,
        previous: str,
        iterations: int = 0,
        start: int = 0,
        every: int = 1,
        seed: int = 1,
        ended: Optional[str] = ENDED,
        nonfinite_at: Optional[int] = None,
        parameters: Any = None,
        manifest: Optional[Dict[str, Any]] = None,
    ) -> None:
        self.connection, self.number = connection, number
        self.iterations, self.start, self.every = iterations, start, every
        self.ended, self.nonfinite_at = ended, nonfinite_at
        self.parameters = parameters or PARAMETERS
        self.random = random.Random(seed)
        self.smoothed = 2.3
        row = ("2026-01-02T03:04:05Z", start, json.dumps(manifest or {"command": ["train", "x"]}))
        rows = [
            (index, name, json.dumps(shape), math.prod(shape), 1.0 + index % 2, 1.0, "sgd")
            for index, (name, shape) in enumerate(self.parameters)
        ]
        self.hash = session_hash(previous, (number, *row), rows)
        self._insert("sessions", [(*row, self.hash, None, None)])
        self._insert("parameters", rows)
        self.between: Dict[str, List[Tuple[Any, ...]]] = {}

    def write(self, iteration: int) -> None:
        """Record one iteration; the figures of parameters at every n-th."""
        draw = self.random.gauss
        loss = 2.3 * math.exp(-iteration / 80) + 0.1 * abs(draw(0, 1)) + 0.05
        self.smoothed += (loss - self.smoothed) / 20
        lost = iteration == self.nonfinite_at
        rows: Dict[str, List[Tuple[Any, ...]]] = dict(self.between)
        self.between = {}
        if iteration % self.every == 0:
            rows["updates"], rows["figures"] = [], []
            for index, (_, shape) in enumerate(self.parameters):
                self._figures(rows, iteration, index, math.prod(shape), lost)
        rate = 0.01 * (1 + 1e-4 * iteration) ** -0.75
        norm = None if lost else 1.5 * loss * (1 + 0.2 * draw(0, 1))
        clip = min(1.0, 1.5 / norm) if norm else None
        figures = (rate, None if lost else loss, self.smoothed, norm, clip)
        rows["iterations"] = [(iteration, *figures, 0.02 + 0.001 * draw(0, 1), 0.001, None)]
        own = iteration_hash(self.hash, rows)
        (row,) = rows.pop("iterations")
        self._insert("iterations", [(*row, self.hash, own)])
        for table, content in rows.items():
            self._insert(table, content)
        self.hash = own
        if lost:
            message = "conv1/0: 2 values of the gradient are not finite"
            self.between["events"] = [(iteration + 1, 0, "nonfinite", message)]
        if (iteration + 1) % 50 == 0:
            at = iteration + 1
            accuracy, tested = 1 - 0.9 * math.exp(-at / 60), 2.2 * math.exp(-at / 90) + 0.06
            self.between["tests"] = [(at, 0, 0, "accuracy", accuracy), (at, 0, 1, "loss", tested)]

    def close(self) -> str:
        """Record what comes after the last iteration; return the last hash."""
        if self.ended is None and not self.between:
            return self.hash
        closing = closing_hash(self.hash, self.between, self.ended or "")
        for table, content in self.between.items():
            self._insert(table, content)
        sql = "UPDATE sessions SET ended = ?, closing = ? WHERE session = ?"
        self.connection.execute(sql, (self.ended, closing, self.number))
        return closing

    def _figures(
        self, rows: Dict[str, List[Tuple[Any, ...]]], iteration: int, index: int, count: int,
        lost: bool,
    ) -> None:  # fmt: skip
        draw, fade = self.random.gauss, math.exp(-iteration / 400)
        scale = math.sqrt(count) * (0.05 + 0.01 * index)
        ratio = (0.004 / (1 + index)) * (0.2 + fade) * math.exp(0.15 * draw(0, 1))
        rows["updates"].append((iteration, index, 0.01 * (1 + index % 2), ratio))
        for quantity in QUANTITIES:
            l2 = scale * {"data": 1 + 0.1 * (1 - fade)}.get(quantity, ratio * 20)
            l2 *= 1 + 0.05 * draw(0, 1) * (quantity != "data")
            spread = l2 / math.sqrt(count)
            nonfinite = 2 if lost and index == 0 and quantity == "gradient" else 0
            figures = (l2, spread * 0.05 * draw(0, 1), -3.2 * spread, 3.4 * spread)
            zeros = self.random.randrange(count // 2) if quantity == "gradient" else 0
            rows["figures"].append((iteration, index, quantity, *figures, zeros, nonfinite))

    def _insert(self, table: str, rows: List[Tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(COLUMNS[table]))
        full = [(self.number, *row) for row in rows]
        self.connection.executemany(f"INSERT INTO {table} VALUES ({marks})", full)
