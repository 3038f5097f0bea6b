"""The user's cache: files kept from run to run, of which nobody else can have written one.

Believing a secret that others can write would be to do as they say. A file is written beside and
linked or renamed, with a checksum before its content: there is never half a file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Iterator

_CHECKSUM = 32  # bytes


def read_kept(name: str) -> bytes:
    """Return what is kept under a name; nothing if there is none, or another could have written it.

    Args:
        name: the file's.
    """
    for folder in _folders():
        with suppress(OSError), open(folder / name, "rb") as file:
            checksum, content = file.read(_CHECKSUM), file.read()
            if only_ours(folder / name) and hashlib.sha256(content).digest() == checksum:
                return content
    return b""


def keep(name: str, content: bytes, replace: bool = False) -> bool:
    """Keep content under a name, or leave what is kept there; return whether that could be done.

    Args:
        name: the file's.
        content: what :func:`read_kept` will return, if nothing was kept before.
        replace: keep it in the place of what was kept before.
    """
    for folder in _folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not only_ours(folder):
                continue
            handle, beside = tempfile.mkstemp(dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest() + content)
                if replace:
                    os.replace(beside, folder / name)
                else:
                    with suppress(FileExistsError):
                        os.link(beside, folder / name)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(beside)
        except OSError:
            continue
        return True
    return False


def keep_newest(prefix: str, most: int) -> None:
    """Remove the oldest of what is kept under names of a prefix; the newest may stay."""
    for folder in _folders():
        with suppress(OSError):
            kept = [entry for entry in os.scandir(folder) if entry.name.startswith(prefix)]
            if len(kept) > most:
                kept.sort(key=lambda entry: entry.stat().st_mtime_ns)
                for entry in kept[: -most // 2]:
                    os.unlink(entry.path)


def only_ours(path: Path) -> bool:
    """Return whether nobody but the user and root can change a file, or put another in its place.

    As ssh looks at its files: the file and each folder above it belong to one of the two, and their
    modes let nobody else write. In a sticky folder such as /tmp nobody can rename what is ours.

    Raises:
        OSError: it cannot be looked at.
    """
    real = Path(os.path.realpath(path))
    for place in (real, *real.parents):
        found = place.stat()
        sticky = place != real and found.st_mode & stat.S_ISVTX
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky
        if writable or found.st_uid not in (0, os.getuid()):
            return False
    return True


def _folders() -> Iterator[Path]:
    """The folders that may keep files, the first choice first."""
    said = os.environ.get("CAFFE_PYSGD_CACHE")
    if said:
        yield Path(said)
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(home, "caffe-pysgd")
    yield Path(tempfile.gettempdir(), f"caffe-pysgd-{os.getuid()}")
