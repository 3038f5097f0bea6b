"""Reading an audit: nothing is left beside it, and it works where nobody can write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.audits import write_audit
from helpers.disks import remount

from caffe_pysgd.audit.store import Store
from caffe_pysgd.audit.writer import Writer

# Records, and dies before it can tidy up.
KILLED = """
import os, sys
from pathlib import Path
from caffe_pysgd.audit.writer import Writer
writer = Writer(Path(sys.argv[1]), fresh=True)
writer.begin_session(0, {}, [])
os._exit(0)
"""


def names(folder: Path) -> Any:
    return sorted(path.name for path in folder.iterdir())


def kill_a_writer(file: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(file)], check=True)
    assert names(file.parent) == ["audit.sqlite", "audit.sqlite-shm", "audit.sqlite-wal"]


def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_audit(tmp_path / "audit.sqlite", 3)
    assert names(tmp_path) == ["audit.sqlite"]
    before = (tmp_path / "audit.sqlite").read_bytes()
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.span() == (0, 2)
    assert names(tmp_path) == ["audit.sqlite"]
    assert (tmp_path / "audit.sqlite").read_bytes() == before


def test_nor_after_a_writer_that_ended_while_it_was_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "audit.sqlite", fresh=True)
    writer.begin_session(0, {}, [])
    with Store(tmp_path) as store:
        assert len(store.sessions()) == 1
        writer.close()
    assert names(tmp_path) == ["audit.sqlite"]
    with Store(tmp_path) as store:
        assert store.sessions()[0].ended


def test_what_a_killed_writer_left_is_read_and_left(tmp_path: Path) -> None:
    kill_a_writer(tmp_path / "audit.sqlite")
    before = {path: path.read_bytes() for path in tmp_path.glob("*[!m]")}
    with Store(tmp_path) as store:
        assert len(store.sessions()) == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("*[!m]")} == before


def test_a_read_only_medium_can_be_read(disk: Path) -> None:
    write_audit(disk / "audit.sqlite", 3)
    remount(disk, "ro")
    with Store(disk) as store:
        assert store.span() == (0, 2)
    assert names(disk) == ["audit.sqlite"]


@pytest.mark.parametrize("with_shm", [True, False])
def test_there_too_after_a_kill(tmp_path: Path, disk: Path, with_shm: bool) -> None:
    (tmp_path / "run").mkdir()
    kill_a_writer(tmp_path / "run" / "audit.sqlite")
    for ending in ("", "-wal", "-shm")[: 3 if with_shm else 2]:
        shutil.copy(tmp_path / f"run/audit.sqlite{ending}", disk)
    remount(disk, "ro")
    with Store(disk) as store:
        assert len(store.sessions()) == 1
