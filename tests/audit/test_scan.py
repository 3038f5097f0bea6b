"""Reading a whole audit in several processes: the same as in one, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, List, Tuple

import numpy as np
import pytest
from helpers.audits import write_sessions
from helpers.recorded_runs import change

from caffe_pysgd.audit import scan as scanning
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.scan import scan
from caffe_pysgd.audit.series import Points, current_iterations
from caffe_pysgd.audit.store import Store

SESSIONS: Any = [
    dict(iterations=120, ended=None),
    dict(start=90, iterations=130, seed=2, nonfinite_at=150),
]


@pytest.fixture
def audit(workdir: Path) -> Path:
    return write_sessions(workdir / "audit.sqlite", SESSIONS)


@pytest.fixture(params=["apsw", "sqlite3"])
def in_processes(request: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Read in processes from now on, whatever the size, with APSW or as if it were not there."""

    def begin() -> None:
        monkeypatch.setattr(scanning, "_WORTH_A_PROCESS", 0)
        if request.param == "sqlite3":
            monkeypatch.setitem(sys.modules, "apsw", None)

    if request.param == "apsw":
        pytest.importorskip("apsw")
    return begin


@pytest.mark.parametrize("at_most", [1000, 30])
def test_processes_find_what_one_finds(
    audit: Path, at_most: int, in_processes: Callable[[], None]
) -> None:
    found = []
    told: List[Tuple[int, int]] = []
    for begin in (lambda: None, in_processes):
        begin()
        with Store(audit) as store:
            points = Points(*current_iterations(store, "updates"), at_most)
            found.append(scan(store, True, points, lambda *progress: told.append(progress)))
        assert told[-1] == (250, 250)
    one, other = found
    assert one.chains is not None and one.chains == other.chains
    for table, series in one.series.items():
        assert series.keys() == other.series[table].keys() != set()
        for key, columns in series.items():
            for name, values in columns.items():
                for mine, theirs in zip(values, other.series[table][key][name]):
                    np.testing.assert_array_equal(mine, theirs)


def test_a_change_is_found_in_processes(audit: Path, in_processes: Callable[[], None]) -> None:
    in_processes()
    assert check_ledger(audit).intact
    change(audit, "UPDATE figures SET zeros = zeros + 1 WHERE session = 2 AND iteration = 171")
    found = check_ledger(audit)
    assert (found.intact, found.session, found.iteration) == (False, 2, 171)


@pytest.mark.parametrize("session", [0, 1.5, 3, "2x"])
def test_a_row_of_no_session_is_found(audit: Path, session: Any) -> None:
    sql = "INSERT INTO figures SELECT ?, iteration, parameter, quantity, l2, mean, min, max, zeros,"
    change(audit, f"{sql} nonfinite FROM figures LIMIT 1", session)
    assert "a row of figures belongs to no session" in check_ledger(audit).reason


@pytest.mark.parametrize("iteration", [float("-inf"), -1, 99.5, 10**6, float("inf"), "x"])
def test_a_row_of_no_iteration_is_found(audit: Path, iteration: Any) -> None:
    assert check_ledger(audit).intact
    sql = "INSERT INTO figures SELECT session, ?, parameter, quantity, l2, mean, min, max, zeros,"
    change(audit, f"{sql} nonfinite FROM figures LIMIT 1", iteration)
    found = check_ledger(audit)
    assert (found.intact, found.session) == (False, 1) and "figures" in found.reason


@pytest.mark.parametrize("iteration", [float("-inf"), -1, 99.5])
def test_a_row_between_iterations_is_found(audit: Path, iteration: Any) -> None:
    change(audit, "INSERT INTO tests VALUES (1, ?, 7, 0, 'accuracy', 0.9)", iteration)
    found = check_ledger(audit)
    assert (found.intact, found.session) == (False, 1)


def test_an_iteration_of_another_type_is_found(audit: Path) -> None:
    """It compares equal, and a column's affinity makes it an integer again, but not in the file."""
    typeless = "UPDATE sqlite_master SET sql = replace(sql, 'iteration INTEGER', 'iteration')"
    with sqlite3.connect(audit) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        ((before,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'figures'")
        connection.execute(f"{typeless} WHERE name = 'figures'")
    change(audit, "UPDATE figures SET iteration = 171.0 WHERE session = 2 AND iteration = 171")
    with sqlite3.connect(audit) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'figures'", [before])
    found = check_ledger(audit)
    assert (found.intact, found.session) == (False, 2)


def test_no_process_outlives_the_one_that_was_killed(audit: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from caffe_pysgd.audit import scan
from caffe_pysgd.audit.store import Store
def work(connection, task):
    print(os.getpid(), flush=True)
    time.sleep(300)
scan._WORTH_A_PROCESS = 0
with Store(Path({str(audit)!r})) as store, scan.in_processes(store, 1, work) as run:
    list(run([1]))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    for _ in range(200):
        if not is_alive(child):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {child} is still there")


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"
