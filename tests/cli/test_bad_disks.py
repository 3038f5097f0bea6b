"""A full disk, a file-size limit and a read-only folder: one line, and nothing that was is lost."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path
from typing import Any, Dict

import pytest
from helpers.disks import remount
from helpers.failures import failure, failure_in_log
from helpers.nets import SMALL, write_solver
from helpers.places import BIN

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.stock.complete import is_complete

COMMANDS = ["train", "solve"]


def write_yaml(folder: Path, keys: str = "") -> None:
    write_solver(folder, SMALL, max_iter=40, snapshot=5, snapshot_prefix="s")
    text = f"solver: solver.prototxt\nrun_dir: run\nsnapshots: {{{keys}}}\n"
    (folder / "run.yaml").write_text(text)


def complete(folder: Path) -> Dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*_iter_*") if is_complete(p)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_costs_no_snapshot_that_was_there(
    workdir: Path, disk: Path, cli: Any, command: str
) -> None:
    write_yaml(workdir, "prefix: disk/s")
    remount(disk, "size=64k")
    full = cli(command, "run.yaml")
    assert full.returncode != 0
    if command == "solve":  # Caffe aborts
        assert "cannot be written: No space left on device" in failure_in_log(full)
        assert all(map(is_complete, disk.iterdir()))
    before = complete(disk)
    assert "s_iter_5.solverstate" in before
    assert check_ledger(workdir / "run").intact
    assert not list(disk.glob(".*"))
    remount(disk, "size=4m")
    resumed = cli(command, "run.yaml", "--snapshot=auto")
    assert resumed.returncode == 0, resumed.stderr
    after = complete(disk)
    assert len(after) == 2 * 8
    assert all(after[name] == before[name] for name in ("s_iter_5.solverstate",))


def test_a_limit_of_the_files_size_is_the_same_to_solve(workdir: Path) -> None:
    write_yaml(workdir)

    def limit() -> None:  # the audit needs some 50 KB, a snapshot is smaller than that
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    program = [str(BIN / "caffe-pysgd"), "solve", "run.yaml"]
    ended = subprocess.run(program, preexec_fn=limit, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "cannot be written: " in failure_in_log(ended)
    assert not list(workdir.glob("run/snapshots/*"))
    assert not [path for path in workdir.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_folder_is_told_before_training(
    workdir: Path, disk: Path, cli: Any, command: str
) -> None:
    write_yaml(workdir)
    (workdir / "run.yaml").write_text("solver: solver.prototxt\nrun_dir: disk/run\n")
    remount(disk, "ro")
    said = failure(cli(command, "run.yaml"))
    assert "disk/run" in said
    assert "Read-only file system" in said
    write_yaml(workdir, "prefix: disk/s")
    said = failure(cli(command, "run.yaml"))
    assert said == "run.yaml: snapshot_prefix: got 'disk/s'; the folder disk is not writable"
    assert not (workdir / "run").exists()
