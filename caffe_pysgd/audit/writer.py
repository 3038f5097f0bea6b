"""Writing an audit: sessions, iterations, and what comes between them, each with its hash.

The file is in SQLite's WAL mode: what was committed survives a kill at any moment, and readers do
not wait for the writer.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from caffe_pysgd.audit.ledger import (
    HASHED,
    IN_ITERATION,
    NO_HASH,
    Row,
    Rows,
    closing_hash,
    iteration_hash,
    session_hash,
)
from caffe_pysgd.audit.lock import create, lock, move_aside, open_files, said_of
from caffe_pysgd.audit.schema import APPLICATION_ID, COLUMNS, IN_BETWEEN, KEYS, VERSION
from caffe_pysgd.errors import UserError


class Writer:
    """The one writer of a store.

    Args:
        file: the store; made if it is not there, with its folder.
        fresh: begin a new file; one that is there is kept under another name.

    Attributes:
        kept: under which name, or None.

    Raises:
        UserError: another process or solver is recording into the file; it cannot be written, or is
            no audit.
    """

    def __init__(self, file: Path, fresh: bool) -> None:
        self.file = file
        self.kept: Optional[Path] = None
        self._session = 0
        self._hash = NO_HASH
        self._closed = False
        self._between: Dict[str, Dict[Row, Row]] = {table: {} for table in IN_BETWEEN}
        self._closing = False
        with said_of(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            there = file.exists()
            if not there:
                create(file)
            self._lock = lock(file)
            try:
                if fresh and there:
                    self.kept = move_aside(file)
                    create(file)
                    os.close(self._lock)
                    self._lock = lock(file)
                self._connection = _connect(file)
                open_files.add(file.resolve())
            except BaseException:
                os.close(self._lock)
                raise

    # -- sessions ---------------------------------------------------------------------------------

    def begin_session(
        self, start_iteration: int, manifest: Mapping[str, Any], parameters: Sequence[Row]
    ) -> None:
        """Add a session, chained to the last one.

        Args:
            start_iteration: of the first update that it will record.
            manifest: what is known of the run; JSON.
            parameters: rows of the table, the columns of ``HASHED``.
        """
        self._end_session()
        with self._transaction():
            last = self._connection.execute(
                "SELECT session, coalesce(closing, (SELECT hash FROM iterations i WHERE i.session ="
                " s.session ORDER BY iteration DESC LIMIT 1), hash) FROM sessions s"
                " ORDER BY session DESC LIMIT 1"
            ).fetchone()
            self._session, previous = (last[0] + 1, last[1]) if last else (1, NO_HASH)
            row = (self._session, _now(), start_iteration, json.dumps(manifest))
            self._hash = session_hash(previous, row, parameters)
            self._connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, NULL, NULL)", (*row, self._hash)
            )
            self._insert({"parameters": parameters})

    def _end_session(self) -> None:
        if not self._session:
            return
        ended = _now()
        with self._transaction():
            self._connection.execute(
                "UPDATE sessions SET ended = ?, closing = ? WHERE session = ?",
                (ended, closing_hash(self._hash, self._trailing(), ended), self._session),
            )
            for rows in self._between.values():
                rows.clear()
            self._closing = False
            self._session = 0

    def close(self) -> None:
        """End the session and close the file."""
        if self._closed:
            return
        self._closed = True
        try:
            with said_of(self.file):
                self._end_session()
        finally:
            with suppress(sqlite3.Error):
                self._connection.close()
            # After SQLite's own: closing a file gives up every lock of a process on it.
            os.close(self._lock)
            open_files.discard(self.file.resolve())

    # -- rows -------------------------------------------------------------------------------------

    def add_iterations(self, iterations: Sequence[Dict[str, List[Row]]]) -> None:
        """Write the rows of iterations, in one transaction.

        Args:
            iterations: for each its rows by table, the columns of ``HASHED``; the one row of
                ``iterations`` among them.
        """
        with self._transaction():
            for rows in iterations:
                self._add_iteration(rows)
            if self._closing:
                sql = "UPDATE sessions SET closing = NULL WHERE session = ?"
                self._connection.execute(sql, (self._session,))
                self._closing = False

    def _add_iteration(self, rows: Dict[str, List[Row]]) -> None:
        for table in IN_BETWEEN:
            self.keep(table, rows.pop(table, []))
        for own in rows.values():
            own.sort()  # by its key, with which each row begins
        hashed = {**rows, **self._trailing()}
        previous, self._hash = self._hash, iteration_hash(self._hash, hashed)
        self._insert(rows, (previous, self._hash))
        for between in self._between.values():
            between.clear()

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Write what comes between two iterations: a test, a snapshot, an event."""
        with self._transaction():
            self.keep(table, rows)
            closing = closing_hash(self._hash, self._trailing(), "")
            sql = "UPDATE sessions SET closing = ? WHERE session = ?"
            self._connection.execute(sql, (closing, self._session))
            self._closing = True

    def keep(self, table: str, rows: Sequence[Row]) -> None:
        """Write what comes between two iterations, in a transaction that goes on."""
        width = len(KEYS[table]) - 1
        for row in rows:
            self._between[table][row[:width]] = row
        self._insert({table: rows})

    def _trailing(self) -> Rows:
        return {table: sorted(rows.values()) for table, rows in self._between.items() if rows}

    def _insert(self, tables: Rows, hashes: Row = ()) -> None:
        for table, rows in tables.items():
            if table == "iterations":
                self._connection.execute(_INSERT[table], (self._session, *rows[0], *hashes))
            elif rows:
                self._connection.executemany(_INSERT[table], rows_of(self._session, rows))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of it or nothing, and know which: Ctrl-C may come at any line."""
        between = {table: dict(rows) for table, rows in self._between.items()}
        before = self._session, self._hash, self._closing, between
        with said_of(self.file):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                    self._session, self._hash, self._closing, self._between = before
                raise


def rows_of(session: int, rows: Sequence[Row]) -> Iterator[Row]:
    """Return rows with their session before them, as the tables have them."""
    before = (session,)
    return (before + row for row in rows)


def _insertion(table: str) -> str:
    columns = ["session", *(name for name in HASHED[table] if name != "session")]
    columns += [name for name in COLUMNS[table] if name in ("previous", "hash")]
    marks = ", ".join("?" * len(columns))
    verb = "INSERT OR REPLACE" if table in IN_BETWEEN else "INSERT"
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({marks})"


_INSERT = {table: _insertion(table) for table in ("parameters", *IN_ITERATION)}


def _connect(file: Path) -> sqlite3.Connection:
    # Transactions are our own; and Caffe may call from a thread of its own.
    connection = sqlite3.connect(
        str(file), isolation_level=None, check_same_thread=False, timeout=30
    )
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        known = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        ]
    except sqlite3.Error:
        connection.close()
        raise
    if known != [APPLICATION_ID, VERSION]:
        connection.close()
        raise UserError(
            f"{file}: is no audit of this version of caffe-pysgd; give the audit another file"
        )
    return connection


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
