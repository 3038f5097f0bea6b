"""kill -9 at any moment: what was committed is there, and the ledger is whole."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from helpers.recorded_runs import rows, write_recorded

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe


def last_committed(file: Path) -> int:
    """Return the last iteration that a reader sees, or -1."""
    try:
        with Store(file) as store:
            span = store.span()
    except UserError:  # not there yet
        return -1
    return span[1] if span else -1


def train_and_kill(cli: Any, workdir: Path, moments: int, **fields: Any) -> int:
    """Kill `caffe train` again and again, at moments around all that it writes.

    Return how often there was something to be lost.
    """
    source = write_recorded(
        workdir, "{weights_every: 3, histograms: 5}", max_iter=10**6, snapshot=7, **fields
    )
    assert cli("inject", source).returncode == 0
    command = [str(pycaffe.binary()), "train", "--solver=run/solver.prototxt"]
    environment = {**pycaffe.binary_environment(), "GLOG_minloglevel": "2"}
    file, generator, recorded = workdir / "run/audit.sqlite", random.Random(9), 0
    for moment in range(moments):
        for left in workdir.glob("run/audit*"):
            left.unlink()
        process = subprocess.Popen(command, env=environment)
        # Half of them fall on the making of the file and its first rows.
        while not file.exists():
            assert process.poll() is None
        while moment % 3 == 1 and last_committed(file) < 0:  # a busy machine is slow
            assert process.poll() is None
        time.sleep(generator.uniform(0, 0.05 if moment % 2 else 0.5))
        seen = last_committed(file) if moment % 3 else -1
        process.kill()
        process.wait()
        found = check_ledger(file)
        assert found.intact, found.reason
        last = -1 if found.last_iteration is None else found.last_iteration
        assert last >= seen
        assert found.iterations == last + 1
        parameters = rows(file, "SELECT count(*) FROM parameters")[0][0]
        figures = rows(file, "SELECT count(*) FROM figures")[0][0]
        assert figures == found.iterations * parameters * 5
        recorded += last >= 0
    return recorded


def test_killed_at_some_moments(cli: Callable, workdir: Path) -> None:
    assert train_and_kill(cli, workdir, 5) >= 1


@pytest.mark.slow
def test_killed_at_fifty_moments(cli: Callable, workdir: Path) -> None:
    assert train_and_kill(cli, workdir, 50, test_iter=2, test_interval=3) >= 16


def test_a_killed_run_goes_on_in_the_same_ledger(cli: Callable, workdir: Path) -> None:
    source = write_recorded(workdir, max_iter=10**6, snapshot=5)
    assert cli("inject", source).returncode == 0
    command = [str(pycaffe.binary()), "train", "--solver=run/solver.prototxt"]
    file = workdir / "run/audit.sqlite"
    environment = {**pycaffe.binary_environment(), "GLOG_minloglevel": "2"}
    process = subprocess.Popen(command, env=environment)
    while last_committed(file) < 12:
        assert process.poll() is None
    process.kill()
    process.wait()
    snapshot, before = "run_snap_iter_10.solverstate", check_ledger(file)
    resumed = cli("train", source, f"--snapshot={snapshot}", "--iterations=20")
    assert resumed.returncode == 0, resumed.stderr
    found = check_ledger(file)
    assert (found.intact, found.sessions) == (True, 2)
    assert found.iterations == before.iterations + 10
    with Store(file) as store:
        assert list(store.series("loss")[0]) == list(range(20))
