"""Whether a recorded training, done again, comes to what was recorded: all of it, to the bit."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from caffe_pysgd.audit.diff import divergences, recorded_scores, recorded_values
from caffe_pysgd.audit.store import Session, Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.proof.rerun import Retraining, surroundings

Progress = Callable[[int, int], None]
"""Called with how many iterations are done, and of how many."""


@dataclass(frozen=True)
class Difference:
    """The first place at which a record and the training done again diverge.

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
        difference: where the two diverge, or None.
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


def replay(
    store: Store, first: int, last: int, progress: Progress, allow_user_code: bool = False
) -> Replay:
    """Train again what an audit recorded, and compare.

    Args:
        store: the audit.
        first, last: the iterations to compare; each session that recorded any of them is trained
            again from its start, or from a snapshot that it took before the first.
        progress: called as it goes on.
        allow_user_code: run the modules and Python layers that a stranger's audit names.

    Raises:
        UserError: nothing was recorded there, or a session cannot be trained again.
    """
    segments = _segments(store, first, last)
    total = sum(end + 1 - session.start_iteration for session, _, end in segments)
    iterations = hashes = done = 0
    with surroundings(store, allow_user_code):
        for session, begin, end in segments:
            segment = _Segment(store, session, begin, end)
            segment.run(_counting(progress, done - session.start_iteration, total))
            iterations, hashes = iterations + segment.iterations, hashes + segment.hashes
            if segment.difference:
                seeded = store.manifest(session.session)["random_seed"] >= 0
                return Replay(first, last, iterations, hashes, segment.difference, seeded)
            done += end + 1 - session.start_iteration
    return Replay(first, last, iterations, hashes, None)


def _counting(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda iteration: progress(before + iteration + 1, total)


def _segments(store: Store, first: int, last: int) -> List[Tuple[Session, int, int]]:
    """Return the sessions that led to these iterations, each with the first and last of its own."""
    segments = store.segments(first, last)
    if not segments:
        span = store.span()
        there = "there are {} to {}".format(*span) if span else "nothing was recorded"
        raise UserError(f"{store.path}: no iteration from {first} to {last} is recorded; {there}")
    return segments


class _Segment:
    """One session's part of a replay."""

    def __init__(self, store: Store, session: Session, first: int, last: int) -> None:
        self._store, self._session = store, session
        self._first, self._last = first, last
        self._begin()

    def _begin(self) -> None:
        self.iterations = self.hashes = 0
        self.difference: Optional[Difference] = None

    def run(self, advance: Callable[[int], None]) -> None:
        """Train again and compare, from the nearest snapshot; where that differs, from the start.

        A layer of the user's own may have a memory that no snapshot has.
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
            session = self._session.session
            self._pending = self._store.iterations(self._first, self._last, session)

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

    def _compare_upto(self, file: Path, iteration: int) -> None:
        """Compare what is in both by now: the recorder writes a loss curve in batches."""
        if self.difference or not self._pending or self._pending[0] > iteration:
            return
        if not file.exists():
            return
        with Store(file) as again:
            span = again.span()
            while self._pending and span and self._pending[0] <= span[1]:
                self._compare(again, self._pending.pop(0))
                if self.difference:
                    return

    def _compare(self, again: Store, iteration: int) -> None:
        self.difference = compare_update(self._store, self._session.session, again, iteration)
        if self.difference is None:
            self.iterations += 1
            (row,) = self._store.rows("iterations", self._session.session, iteration=iteration)
            self.hashes += row["weights_hash"] is not None


def compare_update(
    store: Store, session: int, again: Store, iteration: int
) -> Optional[Difference]:
    """Compare everything that was recorded of one update; return where it diverges, or None.

    Args:
        store, session: what was recorded.
        again: what was recorded when it was done again, the only session in there.
        iteration: which update.
    """
    (session_again,) = [session.session for session in again.sessions()]
    recorded = recorded_values(store, iteration, session)
    found = recorded_values(again, iteration, session_again)
    for values in (recorded, found):
        # It is made of the losses, and begins anew at each call of ``step``, which nobody recorded.
        values.pop((-1, "smoothed_loss"))
    scores, scores_again = (
        recorded_scores(store, iteration, session),
        recorded_scores(again, iteration, session_again),
    )
    recorded.update(scores)
    found.update({key: scores_again.get(key, value) for key, value in scores.items()})
    names = [p.name for p in store.parameters(session)]
    all_of_them = divergences(names, recorded, found)
    if not all_of_them:
        return None
    first = all_of_them[0]
    parameters = {one.parameter for one in all_of_them if one.parameter}
    others = max(0, len(parameters) - 1)
    return Difference(iteration, first.parameter, first.what, first.a, first.b, others)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:.9g} ({value.hex()})"
    return str(value)
