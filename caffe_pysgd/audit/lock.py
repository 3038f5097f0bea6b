"""The file of a store, from the outside: made whole, kept aside, locked against a second writer."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Iterator, Set

from caffe_pysgd.audit.schema import creation
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import OTHER_FOLDER, lock_against_others

open_files: Set[Path] = set()  # by this process


def refuse_if_locked(file: Path) -> None:
    """Check that nobody is recording into a file.

    Raises:
        UserError: somebody is.
    """
    _refuse_if_open(file)
    if file.is_file():
        with said_of(file):
            os.close(lock(file))


def is_recorded(file: Path) -> bool:
    """Return whether somebody is recording into a file, as far as one who may read it can tell."""
    if file.resolve() in open_files:
        return True
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _refuse_if_open(file: Path) -> None:
    if file.resolve() in open_files:
        raise UserError(f"{file}: a solver of this process is recording into it; {OTHER_FOLDER}")


def lock(file: Path) -> int:
    """Lock a file against other writers until the descriptor is closed; return that.

    Raises:
        UserError: somebody is recording into it.
    """
    _refuse_if_open(file)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        lock_against_others(descriptor, f"{file}: another process is recording into it")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        os.close(descriptor)  # another process has just put a new file in its place


def move_aside(file: Path) -> Path:
    """Rename a store, with the writes that SQLite still keeps beside it."""
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(str(file))
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    number = 1
    while file.with_name(f"{file.stem}.{number}{file.suffix}").exists():
        number += 1
    aside = file.with_name(f"{file.stem}.{number}{file.suffix}")
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{file}{ending}", f"{aside}{ending}")
    return aside


def create(file: Path) -> None:
    """Make an empty store, whole or not at all; one that is there by now stays."""
    name = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        # SQLite would give its group less.
        with open(os.open(name, os.O_CREAT | os.O_EXCL, 0o666), "rb") as made:
            with closing(sqlite3.connect(name)) as connection:
                connection.execute("PRAGMA synchronous = OFF")  # nobody knows of the file yet
                connection.executescript(creation())
                connection.execute("PRAGMA journal_mode = WAL")
            os.fsync(made.fileno())
        with suppress(FileExistsError):
            os.link(name, file)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


@contextmanager
def said_of(file: Path) -> Iterator[None]:
    """Say what goes wrong with a store in one line.

    Raises:
        UserError: SQLite or the system refused something.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"{file}: the audit cannot be written: {error}") from error
    except OSError as error:
        raise UserError(f"{file}: the audit cannot be written: {error.strerror}") from error
