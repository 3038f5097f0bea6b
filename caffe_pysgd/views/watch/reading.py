"""What an audit says at one moment, for the terminal."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.series import Points, current_iterations
from caffe_pysgd.audit.store import DEFAULT_NAME, RecordedParameter, Store

LOSS_POINTS = 160
HISTORY_POINTS = 160
_RECENT = 50  # iterations over which the recorded times are averaged


class ParameterNow(NamedTuple):
    """One parameter at the last iteration that has figures."""

    parameter: RecordedParameter
    ratio: Optional[float]
    local_rate: float
    figures: Dict[str, Dict[str, Any]]


class Reading(NamedTuple):
    """What the audit says at one moment.

    Attributes:
        done: how many updates there were, counted from iteration 0; 0 before the first.
        max_iter: up to where the run goes; None where it did not say.
        last: the last row of the table ``iterations``.
        losses: the loss over the whole run, in at most ``LOSS_POINTS`` points.
        at: the iteration that the parameters' figures are of.
        tests, scores: of each output the last iteration and score, and all scores.
        events: as (iteration, kind, message).
        speed: iterations a second, by the recorded times.
    """

    path: Path
    session: int
    host: str
    ended: Optional[str]
    done: int
    max_iter: Optional[int]
    last: Dict[str, Any]
    losses: np.ndarray
    at: Optional[int]
    parameters: List[ParameterNow]
    tests: List[Tuple[str, int, float]]
    scores: Dict[str, np.ndarray]
    events: List[Tuple[int, str, str]]
    speed: Optional[float]

    @property
    def alarms(self) -> List[str]:
        """What was not finite."""
        return [message for _, kind, message in self.events if kind in ("nonfinite", "skipped")]


def look(run: Path) -> Optional[Reading]:
    """Read an audit, opened anew: a new run may have put another file in its place.

    Returns:
        what it says now; None before there is one.

    Raises:
        UserError: what is there is no audit, or is damaged.
    """
    file = audit_of(run)
    if not file.exists() or not file.stat().st_size:
        return None
    with open_audit(file) as store:
        return read(store) if store.sessions() else None


def audit_of(run: Path) -> Path:
    """Return the audit of a run directory, or the audit itself."""
    return run / DEFAULT_NAME if run.is_dir() else run


def read(store: Store) -> Reading:
    """Return what an audit says now.

    Raises:
        UserError: it holds no session, or is damaged.
    """
    manifest = store.manifest()
    session = store.sessions()[-1]
    last_row = store.newest("iterations", session.session)
    last = last_row[0] if last_row else {}
    points = Points(*current_iterations(store), LOSS_POINTS)
    series = points.read(store, ["loss", "smoothed_loss"])
    losses = [s.last for s in (series.get("smoothed_loss"), series.get("loss")) if s]
    at, parameters = _parameters(store, session.session)
    tests = {
        output if not net else f"#{net} {output}": series
        for (net, output), series in store.tests().items()
    }
    return Reading(
        path=store.path,
        session=session.session,
        host=str(manifest.get("host", "")),
        ended=session.ended,
        done=last["iteration"] + 1 if last else session.start_iteration,
        max_iter=_max_iter(manifest),
        last=last,
        losses=next((one for one in losses if not np.isnan(one).all()), np.zeros(0)),
        at=at,
        parameters=parameters,
        tests=[(name, int(at[-1]), float(values[-1])) for name, (at, values) in tests.items()],
        scores={name: values for name, (_, values) in tests.items()},
        events=[(row["iteration"], row["kind"], row["message"]) for row in store.rows("events")],
        speed=_recorded_speed(store, session.session),
    )


def _parameters(store: Store, session: int) -> Tuple[Optional[int], List[ParameterNow]]:
    updates = {row["parameter"]: row for row in store.newest("updates", session)}
    if not updates:
        return None, []
    figures: Dict[int, Dict[str, Dict[str, Any]]] = {}
    for row in store.newest("figures", session):
        figures.setdefault(row["parameter"], {})[row["quantity"]] = row
    known = [p for p in store.parameters() if p.parameter in updates]
    at = next(iter(updates.values()))["iteration"]
    return at, [
        ParameterNow(
            parameter,
            updates[parameter.parameter]["ratio"],
            updates[parameter.parameter]["local_rate"],
            figures.get(parameter.parameter, {}),
        )
        for parameter in known
    ]


def history(run: Path, parameter: int) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
    """Return the ratio and the norms of one parameter over the run, at some of its iterations.

    Returns:
        ``ratio``, and by array its L2 norm, each as iterations (int64) and values (float64).

    Raises:
        UserError: there is no audit, or it is damaged.
    """
    with open_audit(audit_of(run)) as store:
        iterations, sessions = current_iterations(store)
        last = len(iterations) - 1
        chosen = np.unique(np.linspace(0, last, HISTORY_POINTS).round().astype(int))
        found: Dict[str, List[Tuple[int, float]]] = {}
        for place in chosen if last >= 0 else ():
            key = (int(sessions[place]), int(iterations[place]), parameter)
            where = "WHERE session = ? AND iteration = ? AND parameter = ?"
            rows = store.query(f"SELECT 'ratio', ratio FROM updates {where}", key)
            rows += store.query(f"SELECT quantity, l2 FROM figures {where}", key)
            for name, value in rows:
                if value is not None:
                    found.setdefault(name, []).append((key[1], value))
    return {
        name: (np.array([at for at, _ in points]), np.array([value for _, value in points]))
        for name, points in found.items()
    }


def _max_iter(manifest: Dict[str, Any]) -> Optional[int]:
    settings = manifest.get("audit")
    value = settings.get("max_iter") if isinstance(settings, dict) else None
    return value if isinstance(value, int) and value > 0 else None


def _recorded_speed(store: Store, session: int) -> Optional[float]:
    sql = (
        "SELECT pass_seconds + update_seconds FROM iterations WHERE session = ?"
        f" ORDER BY iteration DESC LIMIT {_RECENT}"
    )
    seconds = [row[0] for row in store.query(sql, [session]) if row[0]]
    return len(seconds) / math.fsum(seconds) if seconds else None


class Pace:
    """How fast a run goes by the clock, over the last half a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: List[Tuple[float, int]] = []
        self._session = 0

    def see(self, session: int, done: int) -> None:
        """Note how many updates there were by now."""
        if session != self._session or (self._seen and done < self._seen[-1][1]):
            self._session, self._seen = session, []
        now = self._clock()
        if not self._seen or done != self._seen[-1][1]:
            self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[0][0] < now - 30:
            del self._seen[0]

    def speed(self) -> Optional[float]:
        """Return iterations a second; None before something moved."""
        if len(self._seen) < 2:
            return None
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start else None

    def still_seconds(self) -> Optional[float]:
        """Return for how long nothing new was recorded."""
        return self._clock() - self._seen[-1][0] if self._seen else None
