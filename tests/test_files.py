"""Outputs: whole or not at all, and never in the place of something that is no file."""

from __future__ import annotations

import os
import stat
import threading
from itertools import count
from pathlib import Path

import pytest
from helpers.ctrl_c import ctrl_c

from caffe_pysgd.errors import UserError
from caffe_pysgd.files import lock_folder, replacing, write_files


def test_a_failure_leaves_what_was_there(workdir: Path) -> None:
    Path("out").write_text("before")
    with pytest.raises(RuntimeError), replacing(Path("out")) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert Path("out").read_text() == "before"
    assert os.listdir() == ["out"]


def test_ctrl_c_at_any_line_leaves_one_whole_file(workdir: Path) -> None:
    for at in count():
        Path("out").write_text("before")
        with ctrl_c(at, "files.py") as interrupt:
            write_files({Path("out"): "after"})
        assert os.listdir() == ["out"]
        assert Path("out").read_text() in ("before", "after")
        if not interrupt.came:
            break
    assert at > 10


def test_a_link_stays_a_link(workdir: Path) -> None:
    Path("real").write_text("before")
    os.symlink("real", "link")
    write_files({Path("link"): "after"})
    assert Path("link").is_symlink() and Path("real").read_text() == "after"


def test_a_pipe_gets_the_content_and_stays_a_pipe(workdir: Path) -> None:
    os.mkfifo("pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe").read_text()))
    reader.start()
    write_files({Path("pipe"): "content"})
    reader.join(10)
    assert heard == ["content"]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert os.listdir() == ["pipe"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make a device")
def test_a_device_that_is_full_is_told_and_stays_a_device(workdir: Path) -> None:
    try:
        os.mknod("full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
        with open("full", "wb"):
            pass
    except OSError:
        pytest.skip("devices cannot be made here")
    with pytest.raises(UserError, match="full: cannot be written: No space left on device"):
        write_files({Path("full"): "content"})
    assert stat.S_ISCHR(os.stat("full").st_mode)


def test_a_folder_is_one_runs_at_a_time(workdir: Path) -> None:
    first = lock_folder(Path("runs/a"))
    with pytest.raises(UserError, match="runs/a: another run is writing into it"):
        lock_folder(Path("runs/a"))
    os.close(lock_folder(Path("runs/b")))
    os.close(first)
    os.close(lock_folder(Path("runs/a")))
