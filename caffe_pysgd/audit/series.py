"""Long runs, drawn honestly: a point stands for a stretch of iterations and keeps its extremes."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.audit.store import Store


class Stretch(NamedTuple):
    """Iterations of one session that follow each other: one point of a drawing, or many."""

    session: int
    first: int
    last: int


class Series(NamedTuple):
    """One line of a drawing.

    Attributes:
        last: the value at each point's last iteration; NaN where there is none.
        low, high: the extremes of each point's stretch; None where a point is one iteration.
    """

    last: np.ndarray
    low: Optional[np.ndarray] = None
    high: Optional[np.ndarray] = None


class Points:
    """The points at which a run is drawn: every recorded iteration, or stretches of equal width.

    Attributes:
        at: each point's last iteration.
        count: how many iterations were recorded.
        first: the first of them.
        width: how many iterations the widest point stands for; 1: nothing is left out.
    """

    def __init__(self, iterations: np.ndarray, sessions: np.ndarray, at_most: int) -> None:
        self.width = 1
        self.count = len(iterations)
        self.first = int(iterations[0]) if len(iterations) else 0
        if len(iterations) > at_most:
            span = int(iterations[-1] - iterations[0]) + 1
            self.width = -(-span // at_most)
        self._whole = _stretches(iterations, sessions, np.zeros_like(iterations))
        self._stretches = _stretches(iterations, sessions, iterations // self.width)
        self.at = np.array([stretch.last for stretch in self._stretches], np.int64)
        self._iterations, self._sessions = iterations, sessions

    @property
    def is_thinned(self) -> bool:
        """Whether a point stands for more than one iteration."""
        return self.width > 1

    def places(self, session: int, iterations: Sequence[int]) -> List[int]:
        """Return the point that each iteration of a session is drawn in; -1 for none."""
        of = self._iterations[self._sessions == session]
        drawn = dict(zip(of.tolist(), np.searchsorted(self.at, of).tolist()))
        return [drawn.get(iteration, -1) for iteration in iterations]

    def read(self, store: Store, columns: Sequence[str]) -> Dict[str, Series]:
        """Read columns of the table ``iterations`` at these points; nothing where it has no row."""
        rows = [
            row
            for stretch in self._whole
            for row in store.query(
                f"SELECT iteration, {', '.join(columns)} FROM iterations"
                " WHERE session = ? AND iteration BETWEEN ? AND ? ORDER BY iteration",
                stretch,
            )
        ]
        if not rows:
            return {}
        at, *found = (np.array(column, np.float64) for column in zip(*rows))
        if not self.is_thinned:
            return {name: Series(values) for name, values in zip(columns, found)}
        starts = np.searchsorted(at, [stretch.first for stretch in self._stretches])
        ends = np.searchsorted(at, self.at)
        return {
            name: Series(
                values[ends], np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
            )
            for name, values in zip(columns, found)
        }


def current_iterations(store: Store, table: str = "iterations") -> Tuple[np.ndarray, np.ndarray]:
    """Return which iterations a table tells of, in order, and the session that counts for each.

    Where a later session went on from an earlier iteration, the later one counts: the same as the
    views ``current_...`` say, read by ranges of the key, which takes a long run much less time.
    """
    iterations: List[np.ndarray] = []
    sessions: List[np.ndarray] = []
    known = store.sessions()
    for number, session in enumerate(known):
        later = [other.start_iteration for other in known[number + 1 :]]
        end = min(later, default=2**63 - 1)
        found = distinct_iterations(store, table, session.session, end)
        rows = np.array(found, np.int64).reshape(-1)
        iterations.append(rows)
        sessions.append(np.full(len(rows), session.session))
    if not iterations:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    together = np.concatenate(iterations)
    order = np.argsort(together, kind="stable")
    return together[order], np.concatenate(sessions)[order]


def distinct_iterations(
    store: Store, table: str, session: int, end: Optional[int] = None
) -> List[Any]:
    """Return which iterations a table has rows of, in order.

    Args:
        store: the audit.
        table: one of those that tell of iterations.
        session: which session's rows.
        end: the first iteration that is not wanted; None for all, whatever stands there.
    """
    # From one iteration to the next by the key: a table may have a thousand rows of each.
    step = f"SELECT min(iteration) FROM {table} WHERE session = ?1"
    sql = (
        f"WITH RECURSIVE found(i) AS ({step} UNION ALL SELECT ({step} AND iteration > i) FROM found"
        " WHERE i IS NOT NULL) SELECT i FROM found WHERE i IS NOT NULL AND coalesce(i < ?2, 1)"
    )
    return [iteration for (iteration,) in store.query(sql, (session, end))]


def _stretches(iterations: np.ndarray, sessions: np.ndarray, groups: np.ndarray) -> List[Stretch]:
    """Cut iterations where the group or the session changes."""
    if not len(iterations):
        return []
    cut = np.flatnonzero((np.diff(groups) != 0) | (np.diff(sessions) != 0)) + 1
    starts = np.concatenate([[0], cut])
    ends = np.concatenate([cut, [len(iterations)]]) - 1
    return [
        Stretch(int(sessions[start]), int(iterations[start]), int(iterations[end]))
        for start, end in zip(starts, ends)
    ]
