"""``--snapshot auto``: the same command, typed again after a kill, goes on."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from helpers.failures import failure
from helpers.nets import CONSTANT, write_solver
from helpers.running import Running
from helpers.runs import assert_same_bits

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.stock.snapshots import read_model
from caffe_pysgd.update.bits import compare

FIELDS = {"type": "Adam", "momentum2": 0.99, "base_lr": 1e-4, "max_iter": 3000, "snapshot": 100}
LAYERS = [("hidden", 0), ("hidden", 1), ("out", 0), ("out", 1)]


def write_run(workdir: Path, **fields: Any) -> Path:
    write_solver(workdir, CONSTANT, snapshot_prefix="s", **{**FIELDS, **fields})
    path = workdir / "run.yaml"
    path.write_text("solver: solver.prototxt\nrun_dir: run\naudit: {every: 50}\n")
    return path


def weights(iteration: int) -> List[np.ndarray]:
    model = read_model(Path(f"run/snapshots/s_iter_{iteration}.caffemodel"))
    return [model[layer][index] for layer, index in LAYERS]


def train_and_kill(workdir: Path, cli: Any, command: str, kills: int) -> List[str]:
    """Kill a run so many times, each time while it starts, trains or writes; return its log.

    Every fifth kill comes at a random moment of the start; the others after some of the lines that
    stand, as a snapshot does, at every twentieth iteration. What a run trains between its last line
    and the kill, some hundred iterations on a fast machine, is not more than it has left.
    """
    last = 400 + 250 * kills
    write_run(workdir, max_iter=last, snapshot=20, display=20)
    assert cli(command, "run.yaml").returncode == 0
    expected = weights(last)
    shutil.rmtree(workdir / "run")
    rng = random.Random(5)
    program = [command, "run.yaml", "--snapshot", "auto"]
    log = []
    for number in range(kills):
        with Running(*program) as running:
            if number % 5 == 0:
                time.sleep(rng.uniform(0, 1))
            else:
                running.until("Iteration ", times=rng.randint(1, 8))
                time.sleep(rng.uniform(0, 0.02))
            assert running.process.poll() is None, running.log[-2000:]
        log += [line for line in running.log.splitlines() if line.startswith("caffe-pysgd: ")]
    ended = cli(*program)
    assert ended.returncode == 0, ended.stderr[-2000:]
    names = [f"{layer}/{index}" for layer, index in LAYERS]
    assert_same_bits([compare(*both) for both in zip(names, expected, weights(last))])
    assert check_ledger(workdir / "run").intact
    return log


@pytest.mark.parametrize("command", ["train", "solve"])
def test_a_run_that_is_killed_ends_with_the_bits_of_one_that_is_not(
    workdir: Path, cli: Any, command: str
) -> None:
    train_and_kill(workdir, cli, command, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["train", "solve"])
def test_a_hundred_kills(workdir: Path, cli: Any, command: str) -> None:
    log = train_and_kill(workdir, cli, command, kills=100)
    resumed = [line for line in log if "resuming from" in line]
    passed_over = [line for line in log if "passed over" in line]
    print(f"{len(set(resumed))} snapshots gone on from, {len(passed_over)} passed over")
    assert len(set(resumed)) > 50


@pytest.mark.parametrize("command", ["train", "solve"])
@pytest.mark.parametrize("hdf5", [False, True])
def test_torn_snapshots_are_named_and_passed_over(
    workdir: Path, cli: Any, command: str, hdf5: bool
) -> None:
    fields = {"snapshot_format": "HDF5"} if hdf5 else {}
    end = ".h5" if hdf5 else ""
    write_run(workdir, max_iter=400, **fields)
    assert cli(command, "run.yaml").returncode == 0
    snapshots = workdir / "run" / "snapshots"
    for name in (f"s_iter_400.solverstate{end}", f"s_iter_300.caffemodel{end}"):
        torn = snapshots / name
        torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    (snapshots / f"s_iter_500.caffemodel{end}").write_bytes(b"")
    resumed = cli(command, "run.yaml", "--snapshot=auto", "--iterations=401")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    said = [line for line in resumed.stderr.splitlines() if line.startswith("caffe-pysgd: ")]
    passed, here = "caffe-pysgd: passed over: run/snapshots", "run/snapshots"
    assert said[0] == f"{passed}/s_iter_500.caffemodel{end}: has no solver state beside it"
    assert said[1].startswith(f"{passed}/s_iter_400.solverstate{end}: ")
    assert said[2].startswith(f"{passed}/s_iter_300.caffemodel{end}: ")
    resuming = f"resuming from {here}/s_iter_200.solverstate{end}, at iteration 200"
    assert said[3] == f"caffe-pysgd: {resuming}"


@pytest.mark.parametrize("command", ["train", "solve"])
def test_without_a_snapshot_it_starts_at_0(workdir: Path, cli: Any, command: str) -> None:
    write_run(workdir, max_iter=3)
    started = cli(command, "run.yaml", "--snapshot=auto")
    assert started.returncode == 0
    assert "no complete snapshot run/snapshots/s_iter_*: starting at iteration 0" in started.stderr
    assert "give --snapshot" in failure(cli(command, "run.yaml", "--snapshot=auto", "--weights=w"))


@pytest.mark.parametrize("make", ["take_over", "get_solver"])
def test_the_hosts_in_python_take_it_too(workdir: Path, make: str) -> None:
    path = write_run(workdir)
    first = getattr(caffe_pysgd, make)(path)
    first.restore("auto")
    assert first.iter == 0
    first.step(210)
    first.close()
    second = getattr(caffe_pysgd, make)(path)
    second.restore("auto")
    assert second.iter == 200
