"""Writing files so that a crash never leaves half of one, and no two runs write into one folder."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Mapping

from caffe_pysgd.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place beside ``path`` to write to, and rename it into place once that went well.

    Its folder is made if need be. A link stays a link. What is no regular file, such as a device or
    a pipe, gets the content and stays what it is.

    Raises:
        UserError: it cannot be written; what was there stays as it was.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; a file is to be written there")
        if path.exists() and not path.is_file():
            with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
                beside = Path(directory, path.name)
                yield beside
                path.write_bytes(beside.read_bytes())
            return
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL, 0o666))
            yield beside
            os.replace(beside, path)
        except BaseException:
            with suppress(FileNotFoundError):  # Ctrl-C may come when it is in place
                os.unlink(beside)
            raise
    except OSError as error:
        raise cannot_be_written(path, error) from error


def cannot_be_written(path: Path, error: OSError) -> UserError:
    """Return the error that says so."""
    return UserError(f"{path}: cannot be written: {_reason(error)}")


def remove_unfinished(folder: Path, beginning: str) -> None:
    """Remove what ``replacing`` left of files whose names begin so, in processes that were killed.

    Only for who knows that nobody else is writing there.
    """
    for path in folder.glob(f".{glob.escape(beginning)}*.????????"):
        path.unlink()


OTHER_FOLDER = "wait for it to end, or give this run another folder (run_dir, or --run-dir D)"


def lock_against_others(descriptor: int, busy: str) -> None:
    """Lock what is open until its descriptor is closed or the process ends.

    Raises:
        UserError: another process holds the lock: ``busy``, and what to do. It is closed then.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(f"{busy}; {OTHER_FOLDER}") from error
    except OSError:
        pass  # a file system without locks: nothing can be known there


def lock_folder(folder: Path) -> int:
    """Make a folder and lock it against other runs; return the descriptor that holds the lock.

    The lock lasts until the descriptor is closed or the process ends, and goes along with an exec.

    Raises:
        UserError: another run is in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used: {_reason(error)}") from error
    lock_against_others(descriptor, f"{folder}: another run is writing into it")
    return descriptor


def write_files(contents: Mapping[Path, str]) -> None:
    """Write text files, and rename them into place once all are written.

    Raises:
        UserError: one of them cannot be written; the others stay as they were.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(replacing(path)).write_text(content, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON for people to read.

    Raises:
        UserError: the file cannot be written; what was there stays as it was.
    """
    write_files({path: json.dumps(content, indent=2) + "\n"})


def _reason(error: OSError) -> str:
    """Return why, in the system's words; HDF5 hides them in several lines of its own."""
    number = re.search(r"errno = (\d+)", str(error))
    return error.strerror or (os.strerror(int(number[1])) if number else str(error))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
