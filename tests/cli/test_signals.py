"""Signals, once and twice, at `train` and `solve`: what was written, and how it is said."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import Any, List

import pytest
from helpers.nets import SMALL, write_solver
from helpers.running import Running

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.manifest import going_on
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.start import check_native_snapshot, check_snapshot

COMMANDS = ["train", "solve"]
CHECKS = {"train": check_snapshot, "solve": check_native_snapshot}


def write_yaml(folder: Path, **fields: Any) -> Path:
    write_solver(folder, SMALL, **{"max_iter": 1_000_000, "display": 20, **fields})
    path = folder / "run.yaml"
    path.write_text("solver: solver.prototxt\nrun_dir: run\n")
    return path


def states(workdir: Path) -> List[Path]:
    return sorted(workdir.glob("run/snapshots/*.solverstate"), key=lambda p: p.stat().st_mtime)


def hidden(workdir: Path) -> List[Path]:
    return [path for path in workdir.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupted_run_says_how_it_goes_on(
    workdir: Path, cli: Any, command: str, times: int
) -> None:
    source = write_yaml(workdir)
    with Running(command, "run.yaml") as running:
        running.until("Iteration 100 ")
        for _ in range(times):
            running.send(signal.SIGINT)
        assert running.end() == 0
    (state,) = states(workdir)
    iteration = CHECKS[command](state.relative_to(workdir), resolve(source)).iteration
    said = [line for line in running.log.splitlines() if line.startswith("caffe-pysgd: stopped")]
    again = f"caffe-pysgd {command} run.yaml --snapshot {state.relative_to(workdir)}"
    assert said == [f"caffe-pysgd: stopped at iteration {iteration}; to go on: {again}"]
    assert hidden(workdir) == []
    assert check_ledger(workdir / "run").intact
    resumed = cli(*shlex.split(again)[1:], f"--iterations={iteration + 5}")
    assert resumed.returncode == 0, resumed.stderr
    assert f"state resumed at iteration {iteration}" in resumed.stderr or command == "solve"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hang_up_takes_a_snapshot_each_time(workdir: Path, command: str) -> None:
    write_yaml(workdir)
    with Running(command, "run.yaml") as running:
        running.until("Iteration 100 ")
        for _ in range(2):
            running.send(signal.SIGHUP)
            running.until("Snapshotting solver state")
            running.until("Iteration ", times=2)
        assert running.process.poll() is None
        assert len(states(workdir)) == 2
        running.send(signal.SIGINT)
        assert running.end() == 0
    assert len(states(workdir)) == 3
    assert hidden(workdir) == []


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminated_run_leaves_complete_snapshots(
    workdir: Path, cli: Any, command: str, times: int
) -> None:
    source = write_yaml(workdir, snapshot=20)
    with Running(command, "run.yaml") as running:
        running.until("Iteration 200 ")
        for _ in range(times):
            running.send(signal.SIGTERM)
        code = running.end()
    assert code == {"train": -signal.SIGTERM, "solve": 128 + signal.SIGTERM}[command] or times == 2
    assert hidden(workdir) == []
    assert check_ledger(workdir / "run").intact
    resumed = cli(command, "run.yaml", "--snapshot=auto", "--iterations=1")
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"resuming from run/snapshots/solver_iter_\d+\.solverstate", resumed.stderr)
    CHECKS[command](states(workdir)[-1].relative_to(workdir), resolve(source))


@pytest.mark.parametrize(
    "command, again",
    [
        ("python caffe-pysgd train x.yaml", "train x.yaml --snapshot s"),
        ("caffe-pysgd solve --snapshot auto x.yaml --overwrite", "solve x.yaml --snapshot s"),
        ("python -m caffe_pysgd train x --weights=w -- --gpu=0", "train x --snapshot s -- --gpu=0"),
    ],
)
def test_the_command_that_goes_on(command: str, again: str) -> None:
    assert going_on(command.split(), Path("s")) == f"caffe-pysgd {again}"
