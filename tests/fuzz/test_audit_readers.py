"""An audit of any kind is read by every command, or refused in one short line."""

from __future__ import annotations

import io
import random
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import pytest
from helpers.audits import write_audit, write_sessions
from helpers.mutations import SEED, mutations
from helpers.places import PROJECT
from rich.console import Console

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.diff import compare_audits
from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.schema import COLUMNS, KEYS
from caffe_pysgd.errors import UserError
from caffe_pysgd.proof.explain.lookup import find_element
from caffe_pysgd.proof.replay import replay
from caffe_pysgd.views.export import export
from caffe_pysgd.views.report import write_report
from caffe_pysgd.views.watch import read
from caffe_pysgd.views.watch.frame import frame

TOKENS = [
    b"SQLite format 3\0", b"\0" * 16, b"\xff" * 16, b"CREATE TABLE x (y)", b"{", b"[]", b'{"a":',
    b"iterations", b"9e999", b"\x80\x81", b"NULL", b"-1",
]  # fmt: skip


OLD = PROJECT / "tests/compatibility/0.1"
VALUES = [
    None, 0, -1, 2**62, 1e308, float("inf"), "", "x", "{", "[]", '{"audit": 3}', "null", "1e999",
    b"", b"\xff\xfe", "\ud7ff" * 3, "[[[[", "-5", "conv1/0", "{" * 5000,
]  # fmt: skip


def shown(path: Path) -> None:
    with open_audit(path) as store:
        if store.sessions():
            Console(file=io.StringIO(), width=80).print(frame(read(store), 24))


def explained(path: Path) -> None:
    with open_audit(path) as store:
        find_element(store, "conv1/0", [0], 1, lambda done, total: None)


def replayed(path: Path) -> None:
    with open_audit(path) as store:
        replay(store, 0, 1, lambda done, total: None)


def commands(folder: Path, sound: Path) -> Dict[str, Callable[[Path], Any]]:
    return {
        "check": check_ledger,
        "compare": lambda path: compare_audits(path, sound),
        "report": lambda path: write_report([path], folder / "page.html"),
        "watch": shown,
        "csv": lambda path: export(path, "csv", folder / "csv"),
        "tensorboard": lambda path: export(path, "tensorboard", folder / "events"),
        "explain": explained,
        "replay": replayed,
    }


def damaged(folder: Path, count: int) -> Iterator[Path]:
    """Yield so many damaged audits: every other one has bytes changed, or values in its tables."""
    two = [{"iterations": 4}, {"iterations": 3, "start": 2}]
    sound = [write_sessions(folder / "two.sqlite", two), OLD / "run/audit.sqlite"]
    bytes_changed = mutations([path.read_bytes() for path in sound], TOKENS, -(-count // 2))
    rng = random.Random(SEED)
    path = folder / "damaged.sqlite"
    for number in range(count):
        if number % 2:
            shutil.copy(sound[number // 2 % 2], path)
            change_values(path, rng)
        else:
            path.write_bytes(next(bytes_changed))
        yield path


def change_values(path: Path, rng: random.Random) -> None:
    """Put something else into one to three values of an audit."""
    connection = sqlite3.connect(path)
    for _ in range(rng.randint(1, 3)):
        table = rng.choice(list(COLUMNS))
        column = rng.choice(list(COLUMNS[table]))
        sql = f"SELECT {', '.join(KEYS[table])} FROM {table}"
        rows = connection.execute(sql).fetchall()
        if rows:
            where = " AND ".join(f"{key} IS ?" for key in KEYS[table])
            sql = f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {where}"
            with suppress(sqlite3.IntegrityError):
                connection.execute(sql, (rng.choice(VALUES), *rng.choice(rows)))
    connection.commit()
    connection.close()


def unexpected(folder: Path, count: int, first: int = 0) -> List[str]:
    """Return what reading so many damaged audits raised besides refusals, from the first one on."""
    sound = write_audit(folder / "sound.sqlite", 4)
    found = []
    for number, path in enumerate(damaged(folder, first + count)):
        if number < first:
            continue
        for name, command in commands(folder, sound).items():
            try:
                command(path)
            except UserError as error:
                if len(str(error)) > 1000:
                    found.append(f"{number} {name}: a message of {len(str(error))} characters")
            except Exception as error:
                found.append(f"{number} {name}: {type(error).__name__}: {str(error)[:100]}")
    return found


@pytest.fixture(autouse=True)
def _silent() -> Any:
    with np.errstate(all="ignore"):
        yield


def test_damaged_files_are_refused(workdir: Path) -> None:
    assert unexpected(workdir, 40) == []


# A text of 5,000 characters where a session's number or a parameter's name should be.
@pytest.mark.parametrize("number", [331, 379])
def test_one_that_once_was_shown_whole_is_refused_in_short(workdir: Path, number: int) -> None:
    assert unexpected(workdir, 1, first=number) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, 10_000, 500))
def test_ten_thousand_damaged_files_are_refused(workdir: Path, first: int) -> None:
    assert unexpected(workdir, 500, first) == []
