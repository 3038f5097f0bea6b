"""Checking a ledger: whether the chain is intact, and if not, where it was broken."""

from __future__ import annotations

import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

from caffe_pysgd.audit.ledger import (
    HASHED,
    IN_ITERATION,
    NO_HASH,
    Row,
    closing_hash,
    iteration_hash,
    session_hash,
)
from caffe_pysgd.audit.scan import Chain, Progress, scan
from caffe_pysgd.audit.schema import IN_BETWEEN, KEYS, OF_AN_UPDATE
from caffe_pysgd.audit.store import Store


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        intact: whether every row is as it was recorded, and none is missing or added.
        sessions, iterations: how many were found to be as recorded.
        last_iteration: the last of these iterations.
        last_hash: what the chain ends with. Who keeps it elsewhere can prove that the whole file is
            the one of that time.
        session, iteration: where it was broken; None where it is intact. Without an iteration, it
            is what the session says of itself.
        reason: what is wrong there.
    """

    intact: bool
    sessions: int
    iterations: int
    last_iteration: Optional[int]
    last_hash: str
    session: Optional[int] = None
    iteration: Optional[int] = None
    reason: str = ""

    def __str__(self) -> str:
        """Return what a person wants to read, in one line."""
        if self.intact:
            upto = "" if self.last_iteration is None else f" up to {self.last_iteration}"
            return (
                f"intact: {_number(self.sessions, 'session')}, "
                f"{_number(self.iterations, 'iteration')}{upto}, last hash {self.last_hash}"
            )
        where = "" if self.session is None else f" in session {self.session}"
        if self.iteration is not None:
            where = f" at iteration {self.iteration}{where}"
        return f"broken{where}: {self.reason}"


def check_ledger(path: Path, progress: Optional[Progress] = None) -> Checked:
    """Return whether a ledger is intact, and if not, where it is broken first.

    Args:
        path: an audit, or a run directory.
        progress: is told how far it is.

    Raises:
        UserError: there is no audit in the file.
    """
    with Store(path) as store:
        try:
            chains = scan(store, progress=progress).chains
        except Exception:  # a damaged file can raise anything; the walk says where it is
            chains = None
        return judged(store, chains)


def judged(store: Store, chains: Optional[Mapping[int, Chain]]) -> Checked:
    """Return what a scan that verified the hashes comes to.

    Args:
        store: the audit, at the moment of the scan.
        chains: what the scan found; None where something was wrong: it is looked for now.
    """
    if chains is not None:
        found = _Check(store.connection, chains).run()
        if found.intact:
            return found
    with Store(store.path) as anew:
        anew.hold()
        # Bytes that are no UTF-8 any more must not keep their neighbours from being looked at.
        anew.connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        return _Check(anew.connection, {}).run()


class _Broken(Exception):
    def __init__(self, iteration: Optional[int], reason: str) -> None:
        super().__init__(reason)
        self.iteration, self.reason = iteration, reason


class _Check:
    """One walk along the chain, row by row: a ledger may be larger than memory.

    Args:
        connection: in a transaction: all of it as it is now, though a run may be writing.
        chains: the sessions whose iterations need no look any more.
    """

    def __init__(self, connection: sqlite3.Connection, chains: Mapping[int, Chain]) -> None:
        self.connection, self.chains = connection, chains
        self.hash = NO_HASH
        self.sessions = self.iterations = 0
        self.session: Optional[int] = None
        self.last_iteration: Optional[int] = None

    def run(self) -> Checked:
        try:
            self._check_sessions()
        except _Broken as broken:
            return self._found(False, broken.iteration, broken.reason)
        except (sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:
            after = "" if self.last_iteration is None else f" after iteration {self.last_iteration}"
            return self._found(False, None, f"the file is damaged{after}: {str(error)[:200]}")
        self.session = None
        return self._found(True, None, "")

    def _found(self, intact: bool, iteration: Optional[int], reason: str) -> Checked:
        return Checked(
            intact,
            self.sessions,
            self.iterations,
            self.last_iteration,
            self.hash,
            # In a damaged file, anything may stand where a number should.
            self.session if isinstance(self.session, int) else None,
            iteration if isinstance(iteration, int) else None,
            reason,
        )

    def _check_sessions(self) -> None:
        known: List[Any] = []
        columns = [*HASHED["sessions"], "hash", "ended", "closing"]
        sql = f"SELECT {', '.join(columns)} FROM sessions ORDER BY session"
        for *row, own, ended, closing in self.connection.execute(sql).fetchall():
            self.session = row[0]
            if row[0] != len(known) + 1:
                raise _Broken(None, f"session {len(known) + 1} is missing")
            known.append(row[0])
            parameters = list(self._rows("parameters"))
            expected = _hashed(session_hash, self.hash, tuple(row), parameters)
            if own != expected:
                raise _Broken(
                    None, "its manifest or its parameters, or all before it, were changed"
                )
            self.hash = own
            trailing = self._confirmed() if row[0] in self.chains else self._check_iterations()
            self._check_closing(trailing, ended, closing)
            self.sessions += 1
        self.session = None
        for table in ("parameters", *IN_ITERATION):
            lost = self._beside(table, len(known))
            if lost:
                iteration = lost[1] if table != "parameters" else None
                raise _Broken(iteration, f"a row of {table} belongs to no session")

    def _beside(self, table: str, sessions: int) -> Optional[Row]:
        """Return a row whose session is none of those that there are."""
        between = [(number, number + 1) for number in range(1, sessions)]
        sql = f"SELECT * FROM {table} WHERE session > ? AND session < ? LIMIT 1"
        found = [self.connection.execute(sql, ends).fetchone() for ends in between]
        for sql, end in (
            (f"SELECT * FROM {table} WHERE session < ? LIMIT 1", 1),
            (f"SELECT * FROM {table} WHERE session > ? LIMIT 1", sessions),
        ):
            found.append(self.connection.execute(sql, (end,)).fetchone())
        return next((row for row in found if row), None)

    def _confirmed(self) -> Dict[str, List[Row]]:
        """Follow a chain that was found right; return the rows after its last iteration."""
        assert self.session is not None
        chain = self.chains[self.session]
        if chain.length:
            if chain.begins != self.hash:
                raise _Broken(None, "it does not follow what is before it in the file")
            self.hash, self.last_iteration = str(chain.ends), chain.last
            self.iterations += chain.length
        after = -(2**63) if chain.last is None else chain.last
        return {table: [row for row in self._rows(table) if row[0] > after] for table in IN_BETWEEN}

    def _check_iterations(self) -> Dict[str, List[Row]]:
        """Follow the session's iterations; return the rows after the last one."""
        columns = [*HASHED["iterations"], "previous", "hash"]
        sql = f"SELECT {', '.join(columns)} FROM iterations WHERE session = ? ORDER BY iteration"
        updates = {table: _Following(self._rows(table), table) for table in OF_AN_UPDATE}
        between = {table: _Following(self._rows(table), table) for table in IN_BETWEEN}
        for *row, previous, own in self.connection.execute(sql, [self.session]):
            iteration = row[0]
            rows: Dict[str, List[Row]] = {"iterations": [tuple(row)]}
            for table, following in updates.items():
                rows[table] = following.up_to(iteration)
                for found in rows[table]:
                    if found[0] != iteration:
                        raise _Broken(found[0], f"a row of {table} has no row in iterations")
            for table, following in between.items():
                rows[table] = following.up_to(iteration)
            if previous != self.hash:
                raise _Broken(iteration, "it does not follow what is before it in the file")
            if own != _hashed(iteration_hash, self.hash, rows):
                raise _Broken(iteration, "what was recorded there was changed")
            self.hash, self.last_iteration = own, iteration
            self.iterations += 1
        for table, following in updates.items():
            for found in following.rest():
                raise _Broken(found[0], f"a row of {table} has no row in iterations")
        return {table: following.rest() for table, following in between.items()}

    def _check_closing(
        self, rows: Dict[str, List[Row]], ended: Optional[str], closing: Optional[str]
    ) -> None:
        if closing is None and ended is None and not any(rows.values()):
            return
        if closing != _hashed(closing_hash, self.hash, rows, ended or ""):
            numbers = [row[0] for table in rows.values() for row in table]
            last = self.last_iteration
            raise _Broken(
                min(numbers, default=last),
                "what was recorded after the last iteration was changed, or iterations are missing",
            )
        self.hash = str(closing)

    def _rows(self, table: str) -> Iterator[Row]:
        order = ", ".join(KEYS[table])
        sql = f"SELECT {', '.join(HASHED[table])} FROM {table} WHERE session = ? ORDER BY {order}"
        return iter(self.connection.execute(sql, [self.session]))


class _Following:
    """The rows of one table, taken from the front as the iterations go by."""

    def __init__(self, rows: Iterator[Row], table: str) -> None:
        self._rows, self._table = rows, table
        self._next = next(rows, None)

    def up_to(self, iteration: int) -> List[Row]:
        taken = []
        while self._next is not None and self._number(self._next) <= iteration:
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken

    def rest(self) -> List[Row]:
        rest = [] if self._next is None else [self._next, *self._rows]
        self._next = None
        return rest

    def _number(self, row: Row) -> int:
        if not isinstance(row[0], int):
            raise _Broken(None, f"a row of {self._table} has no number for its iteration")
        return row[0]


def _hashed(function: Any, *arguments: Any) -> str:
    """Return a hash, or none where a value is not even of its column's kind."""
    try:
        result: str = function(*arguments)
    except (struct.error, TypeError, ValueError, AttributeError):
        return ""
    return result


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
