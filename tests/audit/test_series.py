"""Long runs: each point is the last value of its stretch, with the extremes; nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.audits import write_audit, write_sessions

from caffe_pysgd.audit.scan import scan
from caffe_pysgd.audit.series import Points, current_iterations
from caffe_pysgd.audit.store import FIGURES, Store

RESUMED = [
    dict(iterations=70, ended=None),
    dict(start=50, iterations=40, seed=2),
    dict(start=60, iterations=45, seed=3),
]


@pytest.mark.parametrize("sessions", [[dict(iterations=83)], RESUMED])
@pytest.mark.parametrize("at_most", [7, 20, 82, 1000])
def test_points_say_what_the_views_say(workdir: Path, sessions: list, at_most: int) -> None:
    with Store(write_sessions(workdir / "audit.sqlite", sessions)) as store:
        points = Points(*current_iterations(store), at_most)
        at, loss = store.series("loss")
        assert points.is_thinned == (at_most < len(at))
        same_as_brute_force(points, points.read(store, ["loss"])["loss"], at, loss)
        series = scan(store, verify=False, points=points).series
        figures = series["figures"]
        for figure in FIGURES:
            at, values = store.figures(2, "update", figure)
            same_as_brute_force(points, figures[2, "update"][figure], at, values)
        at, ratios = store.updates(1, "ratio")
        same_as_brute_force(points, series["updates"][1,]["ratio"], at, ratios)


def same_as_brute_force(points: Points, series: object, at: np.ndarray, values: np.ndarray) -> None:
    last, low, high = series  # type: ignore[misc]
    assert (points.at[0] >= at[0]) and points.at[-1] == at[-1]
    before = at[0] - 1
    for index, end in enumerate(points.at):
        inside = values[(at > before) & (at <= end)]
        before = end
        assert 0 < len(inside) <= points.width
        assert last[index] == inside[-1]
        if points.is_thinned:
            assert (low[index], high[index]) == (inside.min(), inside.max())
        else:
            assert low is high is None


def test_what_was_not_recorded_is_a_gap(workdir: Path) -> None:
    audit = write_audit(workdir / "audit.sqlite", 60, nonfinite_at=31)
    with Store(audit) as store:
        for at_most in (1000, 20):
            points = Points(*current_iterations(store), at_most)
            loss = points.read(store, ["loss"])["loss"]
            (where,) = np.flatnonzero(points.at >= 31)[:1]
            assert np.isnan(loss.last).sum() == (not points.is_thinned or points.at[where] == 31)
            if points.is_thinned:
                assert np.isfinite(loss.low).all() and np.isfinite(loss.high).all()
            else:
                assert np.isnan(loss.last[31])


def test_an_empty_session_has_no_points(workdir: Path) -> None:
    with Store(write_audit(workdir / "audit.sqlite", 0)) as store:
        points = Points(*current_iterations(store), 10)
        assert len(points.at) == 0
        assert points.read(store, ["loss"]) == {}
