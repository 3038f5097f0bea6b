"""What is kept from run to run is believed only where nobody else can have written it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caffe_pysgd.cache import keep, only_ours, read_kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAFFE_PYSGD_CACHE", str(tmp_path / "a" / "cache"))
    return tmp_path / "a" / "cache"


def test_what_was_kept_is_read_again(folder: Path) -> None:
    assert read_kept("x") == b""
    assert keep("x", b"content")
    assert read_kept("x") == b"content"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "x").stat().st_mode & 0o777 == 0o600
    assert keep("x", b"other") and read_kept("x") == b"content"
    assert [file.name for file in folder.iterdir()] == ["x"]
    (folder / "x").write_bytes((folder / "x").read_bytes()[:-1])
    assert read_kept("x") == b""


@pytest.mark.parametrize("place", ["x", ".", ".."])
@pytest.mark.parametrize("others", [0o020, 0o002])
def test_what_others_can_write_is_not_believed(folder: Path, place: str, others: int) -> None:
    keep("x", b"content")
    writable = folder / place
    writable.chmod(writable.stat().st_mode | others)
    assert read_kept("x") == b""
    if place != "x":
        assert not keep("y", b"content")
        assert not (folder / "y").exists()
    writable.chmod(writable.stat().st_mode & ~others)
    assert read_kept("x") == b"content"


def test_in_a_sticky_folder_nobody_can_rename_what_is_ours(folder: Path) -> None:
    keep("x", b"content")
    folder.parent.chmod(0o1777)
    assert only_ours(folder / "x")
    assert not only_ours(folder.parent)
    folder.parent.chmod(0o777)
    assert not only_ours(folder / "x")


def test_a_link_is_as_good_as_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    keep("x", b"content")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "x").write_bytes((folder / "x").read_bytes())
    (folder / "link").symlink_to(open_to_all / "x")
    assert read_kept("x") and read_kept("link") == b""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_somebody_else_owns_is_not_believed(folder: Path) -> None:
    keep("x", b"content")
    os.chown(folder, 12345, -1)
    assert read_kept("x") == b"" and not keep("y", b"")
