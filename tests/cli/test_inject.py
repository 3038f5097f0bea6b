"""``inject``: what it prints runs, and it replaces and leaves nothing that is not its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure
from helpers.nets import STAGED, write_solver
from helpers.places import BIN


def test_the_printed_line_trains(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=3, snapshot_prefix="out")
    elsewhere = "/usr/bin:/bin"
    process = cli("inject", "solver.prototxt", "--run-dir", "a folder", PATH=elsewhere)
    assert (process.returncode, process.stderr) == (0, "")
    (line,) = process.stdout.splitlines()
    assert line == f"PATH={BIN}:\"$PATH\" caffe train '--solver=a folder/solver.prototxt'"
    environment = {
        **os.environ,
        "PATH": elsewhere,
        "GLOG_logtostderr": "1",
        "GLOG_minloglevel": "0",
    }
    trained = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stderr
    assert "Python owns the update" in trained.stderr
    assert Path("out_iter_3.solverstate").exists()


def test_level_and_stage_are_part_of_the_printed_line(cli: Any, workdir: Path) -> None:
    write_solver(workdir, STAGED)
    process = cli("inject", "solver.prototxt", "--run-dir=d", "--level=2", "--stage=wide,b")
    assert process.stdout.endswith("--solver=d/solver.prototxt --level=2 --stage=wide,b\n")


def test_the_run_dir_is_the_yamls_or_the_flags(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    Path("run.yaml").write_text("solver: solver.prototxt\nrun_dir: runs/a\n")
    assert cli("inject", "run.yaml").returncode == 0
    assert Path("runs/a/solver.prototxt").exists()
    assert cli("inject", "run.yaml", "--run-dir=b").returncode == 0
    assert Path("b/solver.prototxt").exists()


def test_without_a_run_dir_nothing_is_injected(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    assert failure(cli("inject", "solver.prototxt")) == (
        "solver.prototxt: names no run_dir; give --run-dir D"
    )


def test_injecting_an_injected_file_says_so(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    assert cli("inject", "solver.prototxt", "--run-dir=d").returncode == 0
    said = failure(cli("inject", "d/solver.prototxt", "--run-dir=e"))
    assert said.startswith("d/net.prototxt: is injected already (layer 'pysgd_sgd_")
    assert said.endswith("'); give the original net")
    assert not Path("e").exists()


def test_the_file_that_is_being_injected_is_never_replaced(cli: Any, workdir: Path) -> None:
    source = write_solver(workdir)
    before = source.read_bytes()
    assert failure(cli("inject", "solver.prototxt", "--run-dir=.")) == (
        "solver.prototxt: would be replaced, and caffe-pysgd did not write it; move it away, or "
        "give another folder (run_dir, or --run-dir D) or output"
    )
    assert source.read_bytes() == before
    assert not Path("net.prototxt").exists()


def test_a_users_own_net_file_is_never_replaced(cli: Any, workdir: Path) -> None:
    write_solver(workdir, name="lenet")
    Path("net.prototxt").write_text("name: 'mine'")
    said = failure(cli("train", "lenet.prototxt", "--run-dir=."))
    assert said.startswith("net.prototxt: would be replaced, and caffe-pysgd did not write it")
    assert Path("net.prototxt").read_text() == "name: 'mine'"


@pytest.mark.parametrize(
    ("net", "fields"),
    [
        ("layer { nme: 'x' }", {}),
        ("layers { }", {}),
        ("layer { name: 'x' type: 'Nothing' }", {}),
        (None, {"lr_policy": "nothing"}),
        (None, {"base_lr": "much"}),
    ],
)  # fmt: skip
def test_when_it_fails_no_run_dir_is_made(
    cli: Any, workdir: Path, net: str, fields: dict[str, Any]
) -> None:
    write_solver(workdir, **({"net": net} if net else {}), **fields)
    failure(cli("inject", "solver.prototxt", "--run-dir=d"))
    assert sorted(path.name for path in workdir.iterdir()) == [
        "solver.prototxt", "solver_net.prototxt",
    ]  # fmt: skip


def test_a_run_dir_that_cannot_be_made_is_refused(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    Path("file").touch()
    assert failure(cli("inject", "solver.prototxt", "--run-dir=file")) == (
        "Invalid value for '--run-dir': Directory 'file' is a file."
    )
    assert failure(cli("inject", "solver.prototxt", "--run-dir=file/d")) == (
        "file/d: cannot be used: Not a directory"
    )
    assert failure(cli("inject", "solver.prototxt", "--run-dir=/proc/d")) == (
        "/proc/d: cannot be used: No such file or directory"
    )
