"""What an earlier version wrote goes on working: each folder here was made by the version it names.

The nets, snapshots and records are small, and of no machine: 8 iterations of Adam and of LARS, each
with a snapshot at 4, ``run/`` as ``caffe-pysgd train run.yaml`` left it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Callable

import pytest
from helpers.runs import assert_same_bits, caffe_train

from caffe_pysgd.stock.snapshots import read_model, read_solver_state
from caffe_pysgd.update.bits import compare

VERSIONS = sorted(p.name for p in Path(__file__).parent.iterdir() if (p / "run.yaml").exists())
START = "snapshots/net_iter_4.solverstate"
END = "run/snapshots/net_iter_8.caffemodel"  # a YAML's run has its own, by now
PARAMETERS = [("hidden", 0), ("hidden", 1), ("out", 0)]


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, workdir: Path) -> Path:
    """A working directory that an earlier version left."""
    shutil.copytree(Path(__file__).parent / request.param, workdir, dirs_exist_ok=True)
    return workdir


def start_from(old: Path, snapshots: str) -> None:
    for folder in ("snapshots", "run/snapshots", "lars/snapshots"):
        shutil.rmtree(old / folder, ignore_errors=True)
    shutil.copytree(old / snapshots, old / "snapshots")


def final_weights(path: str = END) -> list:
    model = read_model(Path(path))
    return [model[layer][index] for layer, index in PARAMETERS]


def test_an_injected_solver_and_its_snapshot_train_on_as_ones_written_now(
    cli: Callable, old: Path
) -> None:
    start_from(old, "trained")
    resumed = caffe_train(Path("run/solver.prototxt"), f"--snapshot={START}")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    then = final_weights("snapshots/net_iter_8.caffemodel")

    start_from(old, "trained")
    resumed = cli("train", "run.yaml", "--snapshot", START)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    names = [f"{layer}/{index}" for layer, index in PARAMETERS]
    assert_same_bits([compare(*both) for both in zip(names, then, final_weights())])


@pytest.mark.parametrize("yaml, snapshots", [("run.yaml", "solved"), ("lars.yaml", "solved_lars")])
def test_a_solver_state_is_resumed(cli: Callable, old: Path, yaml: str, snapshots: str) -> None:
    start_from(old, snapshots)
    resumed = cli("solve", yaml, "--snapshot", START)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    (state,) = old.glob("*/snapshots/net_iter_8.solverstate")
    assert read_solver_state(state).iteration == 8


def test_the_hosts_resume_their_snapshots_to_the_same_bits(cli: Callable, old: Path) -> None:
    found = []
    for command, snapshots in (("train", "trained"), ("solve", "solved")):
        start_from(old, snapshots)
        assert cli(command, "run.yaml", "--snapshot", START).returncode == 0
        found.append(final_weights())
    assert_same_bits([compare(END, *both) for both in zip(*found)])


def test_an_audit_is_read_by_every_command(cli: Callable, old: Path) -> None:
    checked = cli("audit", "check", "run")
    assert (checked.returncode, "8 iterations up to 7" in checked.stdout) == (0, True)
    assert cli("audit", "compare", "run", "run").returncode == 0
    weight = ("--param", "hidden/0", "--index", "1,2")
    explained = cli("explain", "run", *weight, "--iteration", "3")
    assert explained.returncode == 0, explained.stderr
    for command in (
        ("report", "run"),
        ("watch", "--once", "run"),
        ("export", "run", "--format", "csv", "-o", "exported"),
    ):
        done = cli(*command)
        assert done.returncode == 0, done.stderr
    # On another machine the gradients may have other bits; that is found, and no error.
    assert cli("audit", "replay", "run").returncode in (0, 1)


def test_a_session_is_added_to_an_audit(cli: Callable, old: Path) -> None:
    start_from(old, "trained")
    assert cli("train", "run.yaml", "--snapshot", START).returncode == 0
    checked = cli("audit", "check", "run")
    assert checked.returncode == 0, checked.stdout
    assert "2 sessions" in checked.stdout
