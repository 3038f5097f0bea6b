"""The folder of the snapshots: looked for before training, in every host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure
from helpers.nets import SMALL, write_solver

import caffe_pysgd
from caffe_pysgd.errors import SettingError

COMMANDS = ("train", "solve")
MAKERS = ("take_over", "get_solver")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("snapshot", [0, 1])
def test_a_folder_that_is_not_there_is_made(
    workdir: Path, cli: Any, command: str, snapshot: int
) -> None:
    write_solver(workdir, SMALL, max_iter=2, snapshot=snapshot, snapshot_prefix="no/such/s")
    trained = cli(command, "solver.prototxt")
    assert trained.returncode == 0, trained.stderr
    assert (workdir / "no/such/s_iter_2.solverstate").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("snapshot", [0, 1])
def test_a_file_in_its_place_is_told_before_training(
    workdir: Path, cli: Any, command: str, snapshot: int
) -> None:
    (workdir / "file").touch()
    write_solver(workdir, SMALL, max_iter=2, snapshot=snapshot, snapshot_prefix="file/s")
    said = failure(cli(command, "solver.prototxt"))
    assert said.startswith("solver.prototxt: snapshot_prefix: got 'file/s'; the folder file cannot")
    assert not (workdir / "runs").exists()


@pytest.mark.parametrize("make", MAKERS)
def test_the_hosts_in_python_do_the_same(workdir: Path, make: str) -> None:
    (workdir / "file").touch()
    path = write_solver(workdir, SMALL, snapshot=1, snapshot_prefix="file/s")
    with pytest.raises(SettingError, match="snapshot_prefix: got 'file/s'"):
        getattr(caffe_pysgd, make)(path)
    path = write_solver(workdir, SMALL, snapshot=1, snapshot_prefix="made/s")
    getattr(caffe_pysgd, make)(path).step(1)
    assert (workdir / "made/s_iter_1.solverstate").exists()


def test_verify_asks_for_no_folder(workdir: Path, cli: Any) -> None:
    write_solver(workdir, SMALL, max_iter=2, snapshot=1, snapshot_prefix="no/such/s")
    for host in ("in-net", "hook", "solver"):
        verified = cli("verify", "solver.prototxt", "--host", host)
        assert verified.returncode == 0, verified.stderr
    assert not (workdir / "no").exists()
