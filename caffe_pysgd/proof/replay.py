"""Whether a recorded training, done again, comes to what was recorded: all of it, to the bit."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from caffe_pysgd.audit.ledger import HASHED
from caffe_pysgd.audit.schema import OF_AN_UPDATE
from caffe_pysgd.audit.store import Session, Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.proof.rerun import Retraining, working_directory

Progress = Callable[[int, int], None]
"""Hears how many iterations of how many are done."""

# Times are never the same; the smoothed loss is made of the losses, and begins anew at each call of
# ``step``; the ratio is made of two norms that are compared, and older audits have one of 0 for
# BatchNorm's statistics.
_NOT_COMPARED = ("pass_seconds", "update_seconds", "smoothed_loss", "ratio")

# What says most about where a difference comes from, first.
_QUANTITIES = ("gradient", "clipped", "normalized", "regularized", "update", "data")


@dataclass(frozen=True)
class Difference:
    """The first place at which a record and the training done again part.

    Attributes:
        iteration: of the update.
        parameter: the parameter's display name; empty for what is of the whole net.
        what: which figure.
        recorded, found: its two values.
        others: how many more parameters differ at that iteration.
    """

    iteration: int
    parameter: str
    what: str
    recorded: Any
    found: Any
    others: int = 0

    def __str__(self) -> str:
        of = f" of {self.parameter}" if self.parameter else ""
        more = f" ({self.others} more parameters differ there)" if self.others else ""
        return (
            f"iteration {self.iteration}: {self.what}{of} was recorded as {_shown(self.recorded)}, "
            f"trained again it is {_shown(self.found)}{more}"
        )


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Attributes:
        first, last: the iterations that were asked for.
        iterations: how many recorded iterations were confirmed, with every figure.
        hashes: how many hashes of all weights were among that.
        difference: where the two part, or None.
        seeded: whether random numbers were the same; without a seed, data that are drawn and
            dropout are others.
    """

    first: int
    last: int
    iterations: int
    hashes: int
    difference: Optional[Difference]
    seeded: bool = True

    @property
    def verdict(self) -> str:
        """The last line of the report."""
        span = f"replay: iterations {self.first} to {self.last}"
        if self.difference:
            unseeded = "; the solver file has no random_seed, so random numbers were others"
            return f"{span}: {self.difference}{'' if self.seeded else unseeded}"
        if not self.hashes:
            return f"{span}: no hash of the weights was recorded; all figures confirmed"
        return f"{span}: all {self.hashes} recorded hashes confirmed"

    def as_json(self) -> Dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "verdict": self.verdict}


def replay(store: Store, first: int, last: int, progress: Progress) -> Replay:
    """Train again what an audit recorded, and compare.

    Args:
        store: the audit.
        first, last: the iterations to compare; each session that recorded any of them is trained
            again from its start, or from a snapshot that it took before the first.
        progress: hears how it goes on.

    Raises:
        UserError: nothing was recorded there, or a session cannot be trained again.
    """
    legs = _legs(store, first, last)
    total = sum(end + 1 - session.start_iteration for session, _, end in legs)
    iterations = hashes = done = 0
    with working_directory(store):
        for session, begin, end in legs:
            leg = _Leg(store, session, begin, end)
            leg.run(_counting(progress, done - session.start_iteration, total))
            iterations, hashes = iterations + leg.iterations, hashes + leg.hashes
            if leg.difference:
                seeded = store.manifest(session.session)["random_seed"] >= 0
                return Replay(first, last, iterations, hashes, leg.difference, seeded)
            done += end + 1 - session.start_iteration
    return Replay(first, last, iterations, hashes, None)


def _counting(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda iteration: progress(before + iteration + 1, total)


def _legs(store: Store, first: int, last: int) -> List[Tuple[Session, int, int]]:
    """Return the sessions that led to these iterations, each with the first and last of its own."""
    sql = (
        "SELECT session, min(iteration), max(iteration) FROM current_iterations"
        " WHERE iteration BETWEEN ? AND ? GROUP BY session ORDER BY session"
    )
    sessions = {session.session: session for session in store.sessions()}
    legs = [(sessions[number], low, high) for number, low, high in store.query(sql, (first, last))]
    if not legs:
        sql = "SELECT min(iteration), max(iteration) FROM current_iterations"
        ((low, high),) = store.query(sql)
        there = "nothing was recorded" if low is None else f"there are {low} to {high}"
        raise UserError(f"{store.path}: no iteration from {first} to {last} is recorded; {there}")
    return legs


class _Leg:
    """One session's part of a replay."""

    def __init__(self, store: Store, session: Session, first: int, last: int) -> None:
        self._store, self._session = store, session
        self._first, self._last = first, last
        self._begin()

    def _begin(self) -> None:
        self.iterations = self.hashes = 0
        self.difference: Optional[Difference] = None

    def run(self, advance: Callable[[int], None]) -> None:
        """Train again and compare, from the nearest snapshot; where that differs, from the start:
        a layer of the user's own may have a memory that no snapshot has.
        """
        skipped = self._attempt(self._first, advance)
        if self.difference and skipped:
            self._begin()
            self._attempt(0, advance)

    def _attempt(self, skip_to: int, advance: Callable[[int], None]) -> bool:
        """Train again until something differs; return whether a snapshot was gone on from."""
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
            file = Path(directory, "again.sqlite")
            retraining = Retraining(self._store, self._session, skip_to, file)
            self._pending = self._recorded_iterations()

            def updated(iteration: int) -> bool:
                advance(iteration)
                self._compare_upto(file, iteration)
                return self.difference is None

            try:
                retraining.train(self._last + 1, updated)
            finally:
                retraining.close()
            self._compare_upto(file, self._last)
            return retraining.skipped_to > self._session.start_iteration

    def _recorded_iterations(self) -> List[int]:
        sql = (
            "SELECT iteration FROM iterations WHERE session = ? AND iteration BETWEEN ? AND ?"
            " ORDER BY iteration"
        )
        key = (self._session.session, self._first, self._last)
        return [iteration for (iteration,) in self._store.query(sql, key)]

    def _compare_upto(self, file: Path, iteration: int) -> None:
        """Compare what is in both by now: the recorder writes a loss curve in batches."""
        if self.difference or not self._pending or self._pending[0] > iteration:
            return
        if not file.exists():
            return
        with Store(file) as again:
            last = again.last_iteration()
            while self._pending and last is not None and self._pending[0] <= last:
                self._compare(again, self._pending.pop(0))
                if self.difference:
                    return

    def _compare(self, again: Store, iteration: int) -> None:
        self.difference = compare_update(self._store, self._session.session, again, iteration)
        if self.difference is None:
            self.iterations += 1
            sql = "SELECT weights_hash FROM iterations WHERE session = ? AND iteration = ?"
            ((weights_hash,),) = self._store.query(sql, (self._session.session, iteration))
            self.hashes += weights_hash is not None


def compare_update(
    store: Store, session: int, again: Store, iteration: int
) -> Optional[Difference]:
    """Compare everything that was recorded of one update; return where it parts, or None.

    Args:
        store, session: what was recorded.
        again: what was recorded when it was done again, the only session in there.
        iteration: which update.
    """
    (session_again,) = [session.session for session in again.sessions()]
    recorded = _rows_of(store, session, iteration)
    found = _rows_of(again, session_again, iteration)
    keys = [key for key in recorded if key not in found or recorded[key] != found[key]]
    keys += [key for key in found if key not in recorded]
    scores, scores_again = (
        _tests_of(store, session, iteration),
        _tests_of(again, session_again, iteration),
    )
    keys += [key for key in scores if scores[key] != scores_again.get(key, scores[key])]
    recorded.update(scores)
    found.update(scores_again)
    if not keys:
        return None
    number, what = min(keys, key=_importance)
    names = [p.name for p in store.parameters(session)]
    parameters = {key[0] for key in keys if key[0] >= 0}
    return Difference(
        iteration,
        names[number] if number >= 0 else "",
        what,
        recorded.get((number, what)),
        found.get((number, what)),
        max(0, len(parameters) - 1),
    )


Key = Tuple[int, str]
"""A parameter's number, -1 for the whole net, and what is told of it."""


def _rows_of(store: Store, session: int, iteration: int) -> Dict[Key, Any]:
    """Return everything that was recorded of one update, value by value."""
    values: Dict[Key, Any] = {}
    for table in ("iterations", *OF_AN_UPDATE):
        columns = [name for name in HASHED[table] if name not in _NOT_COMPARED]
        sql = f"SELECT {', '.join(columns)} FROM {table} WHERE session = ? AND iteration = ?"
        for row in store.query(sql, (session, iteration)):
            told = dict(zip(columns, row))
            number = told.pop("parameter", -1)
            of = "".join(f"{told.pop(name)} " for name in _WITHIN if name in told)
            of = f"element {of}" if table == "probes" else of
            of = f"histogram of {of}" if table == "histograms" else of
            del told["iteration"]
            values.update({(number, f"{of}{name}"): value for name, value in told.items()})
    return values


def _tests_of(store: Store, session: int, iteration: int) -> Dict[Key, Any]:
    """Return the mean test scores before an update."""
    values: Dict[Key, Any] = {}
    sql = (
        "SELECT net, output, value FROM tests WHERE session = ? AND iteration = ?"
        " ORDER BY net, position"
    )
    for net, output, value in store.query(sql, (session, iteration)):
        place = sum(what.startswith(f"test net {net} {output} ") for _, what in values)
        values[-1, f"test net {net} {output} {place}"] = value
    return values


_WITHIN = ("element", "quantity", "stage")  # further parts of a key


def _importance(key: Key) -> Tuple[int, bool, int, str]:
    """Sort what is of a parameter before what is of all, figures before what was asked for beside
    them, and both in the order of the update.
    """
    number, what = key
    words = what.split()
    places = [place for place, name in enumerate(_QUANTITIES) if name in words]
    place = min(places, default=len(_QUANTITIES))
    beside = words[0] in ("element", "histogram")
    return (number if number >= 0 else 1 << 31, beside, place, what)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:.9g} ({value.hex()})"
    return str(value)
