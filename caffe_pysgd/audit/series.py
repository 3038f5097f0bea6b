"""Long runs, drawn honestly: a point stands for a stretch of iterations and keeps its extremes."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

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
        groups = iterations // self.width
        self._stretches = _stretches(iterations, sessions, groups) if self.is_thinned else []
        ends = [stretch.last for stretch in self._stretches]
        self.at = np.array(ends, np.int64) if self.is_thinned else iterations

    @property
    def is_thinned(self) -> bool:
        """Whether a point stands for more than one iteration."""
        return self.width > 1

    def read(
        self, store: Store, table: str, columns: Sequence[str], keys: Sequence[str] = ()
    ) -> Dict[Tuple[Any, ...], Dict[str, Series]]:
        """Read columns of a table at these points.

        Args:
            keys: the columns beside session and iteration that tell rows apart.

        Returns:
            for each key that occurs: column to series.
        """
        wanted = [f'"{name}"' for name in (*keys, *columns)]
        where = "WHERE session = ? AND iteration BETWEEN ? AND ?"
        if not self.is_thinned:
            sql = f"SELECT iteration, {', '.join(wanted)} FROM {table} {where}"
            position = {int(iteration): index for index, iteration in enumerate(self.at)}
            rows = (
                (position.get(row[0]), row[1:])
                for stretch in self._whole
                for row in store.query(sql, stretch)
            )
            last = self._collect(rows, len(keys), len(columns))
            return {key: dict(zip(columns, map(Series, values))) for key, values in last.items()}
        extremes = [f'{kind}("{name}")' for kind in ("min", "max") for name in columns]
        grouping = f"GROUP BY {', '.join(keys)}" if keys else ""
        sql = f"SELECT {', '.join([*keys, *extremes])} FROM {table} {where} {grouping}"
        ends = f"SELECT {', '.join(wanted)} FROM {table} WHERE session = ? AND iteration = ?"
        spread = self._collect(self._each(store, sql), len(keys), len(extremes))
        last = self._collect(self._each(store, ends, (0, 2)), len(keys), len(columns))
        nothing = np.full(len(self.at), np.nan)
        return {
            key: {
                name: Series(
                    last[key][index] if key in last else nothing,
                    values[index],
                    values[len(columns) + index],
                )
                for index, name in enumerate(columns)
            }
            for key, values in spread.items()
        }

    def _each(
        self, store: Store, sql: str, fields: Sequence[int] = (0, 1, 2)
    ) -> Iterator[Tuple[Optional[int], Tuple[Any, ...]]]:
        for index, stretch in enumerate(self._stretches):
            for row in store.query(sql, [stretch[field] for field in fields]):
                yield index, row

    def _collect(
        self, rows: Iterator[Tuple[Optional[int], Tuple[Any, ...]]], keys: int, columns: int
    ) -> Dict[Tuple[Any, ...], np.ndarray]:
        found: Dict[Tuple[Any, ...], np.ndarray] = {}
        for index, row in rows:
            if index is None:  # recorded after the iterations were counted
                continue
            key = row[:keys]
            if key not in found:
                found[key] = np.full((columns, len(self.at)), np.nan)
            found[key][:, index] = [np.nan if value is None else value for value in row[keys:]]
        return found


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
        sql = f"SELECT DISTINCT iteration FROM {table} WHERE session = ?"
        values: List[Any] = [session.session]
        if later:
            sql += " AND iteration < ?"
            values.append(min(later))
        rows = np.array(store.query(f"{sql} ORDER BY iteration", values), np.int64).reshape(-1)
        iterations.append(rows)
        sessions.append(np.full(len(rows), session.session))
    if not iterations:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    together = np.concatenate(iterations)
    order = np.argsort(together, kind="stable")
    return together[order], np.concatenate(sessions)[order]


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
