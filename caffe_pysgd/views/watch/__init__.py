"""A run in the terminal while it trains: what the audit says now, once a second."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from rich.console import Console
from rich.live import Live

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.series import Points, current_iterations
from caffe_pysgd.audit.store import DEFAULT_NAME, RecordedParameter, Store
from caffe_pysgd.views.watch.frame import frame, waiting_frame

LOSS_POINTS = 40
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
    alarms: List[str]
    speed: Optional[float]


def watch(run: Path, interval: float = 1.0, once: bool = False) -> None:
    """Show a run in the terminal until its session has ended.

    Waits for an audit that is not there yet.

    Args:
        run: a run directory, or an audit.
        interval: seconds from one look at the audit to the next.
        once: print one frame and return.

    Raises:
        UserError: there is no audit and ``once`` is given, or what is there is none.
    """
    console = Console()
    if once or not console.is_terminal:
        with open_audit(run) as store:
            console.print(frame(read(store), console.height, None, None))
        return
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        pace = Pace()
        while True:
            reading = _look(run)
            if reading is None:
                live.update(waiting_frame(run), refresh=True)
            else:
                pace.see(reading.session, reading.done)
                still = pace.still_seconds()
                live.update(frame(reading, console.height, pace.speed(), still), refresh=True)
                if reading.ended:
                    return
            time.sleep(interval)


def _look(run: Path) -> Optional[Reading]:
    """Read the audit, opened anew: a new run may have put another file in its place."""
    file = run / DEFAULT_NAME if run.is_dir() else run
    if not file.exists() or not file.stat().st_size:
        return None
    with open_audit(file) as store:
        return read(store) if store.sessions() else None


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
        tests=[
            (output if not net else f"#{net} {output}", int(iterations[-1]), float(values[-1]))
            for (net, output), (iterations, values) in store.tests().items()
        ],
        alarms=[
            row["message"]
            for row in store.rows("events")
            if row["kind"] in ("nonfinite", "skipped")
        ],
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
