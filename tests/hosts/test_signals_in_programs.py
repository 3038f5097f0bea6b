"""Signals, once and twice, in a program of one's own: they are Python's, and nothing is torn."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, List

import pytest
from helpers.ctrl_c import ctrl_c
from helpers.hosts import Make
from helpers.nets import SMALL, write_solver
from helpers.running import Running

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.start import check_native_snapshot

# The second Ctrl-C comes while a snapshot is written: what else is done then takes no time.
PROGRAM = """
import sys
import caffe_pysgd
solver = caffe_pysgd.{make}("run.yaml")
try:
    solver.step(1_000_000)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr, flush=True)
    try:
        solver.snapshot()
        while {again}:
            solver.snapshot()
    finally:
        solver.close()
"""
SNAPSHOTS = Path("run/snapshots")


def write_yaml(**fields: Any) -> Path:
    write_solver(Path.cwd(), SMALL, **{"display": 20, **fields})
    path = Path("run.yaml")
    path.write_text("solver: solver.prototxt\nrun_dir: run\naudit: {every: 10}\n")
    return path


def started(make: Make, again: bool = False) -> Running:
    program = PROGRAM.format(make=make.__name__, again=again)
    return Running("-c", program, program=Path(sys.executable))


def hidden() -> List[Path]:
    return [path for path in Path().rglob(".*") if path.is_file()]


def goes_on(make: Make, source: Path) -> None:
    """Check that a run's record and its snapshots are whole, and that it can go on."""
    assert check_ledger(Path("run")).intact
    states = list(SNAPSHOTS.glob("*.solverstate"))
    newest = max(check_native_snapshot(path, resolve(source)).iteration for path in states)
    solver = make(source)
    solver.restore("auto")
    assert solver.iter == newest
    solver.step(1)
    solver.close()
    assert check_ledger(Path("run")).intact


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_pythons_and_leaves_what_goes_on(workdir: Path, make: Make, times: int) -> None:
    source = write_yaml()
    with started(make, again=times == 2) as running:
        running.until("Iteration 100")
        running.send(signal.SIGINT)
        running.until("interrupted")
        if times == 2:
            running.until("Snapshotting solver state", times=3)
            running.send(signal.SIGINT)
        assert running.end() == (0 if times == 1 else -signal.SIGINT)
    assert ("KeyboardInterrupt" in running.log) == (times == 2)
    assert hidden() == []
    goes_on(make, source)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_others_end_it_and_leave_what_goes_on(
    workdir: Path, make: Make, number: signal.Signals
) -> None:
    source = write_yaml(snapshot=20)
    with started(make) as running:
        running.until("Iteration 100")
        running.send(number)
        assert running.end() == -number  # as in a program of pycaffe's
    goes_on(make, source)


@pytest.mark.parametrize("where", ["audit/writer.py", "audit", "hosts"])
def test_ctrl_c_at_any_line_leaves_an_intact_record(workdir: Path, make: Make, where: str) -> None:
    write_yaml(snapshot=2)
    rng, came = random.Random(1), 0
    for _ in range(8):
        solver = make("run.yaml")
        with ctrl_c(rng.randrange(400), where) as interrupt:
            solver.step(5)
        came += interrupt.came
        solver.snapshot()
        solver.close()
        assert not Path("run/audit.sqlite").exists() or check_ledger(Path("run")).intact
        assert hidden() == []
        for path in SNAPSHOTS.iterdir():
            os.remove(path)
    assert came > 4
