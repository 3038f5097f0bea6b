"""An audit of any kind is read by every command, or refused in one short line."""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import struct
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List

import numpy as np
import pytest
from helpers.audits import chain_anew, write_audit, write_sessions
from helpers.mutations import SEED, mutations
from helpers.places import PROJECT
from rich.console import Console

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.diff import compare_audits
from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.schema import COLUMNS, KEYS
from caffe_pysgd.errors import UserError
from caffe_pysgd.proof.explain.explanation import explain
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


NONSENSE = [
    "null", "true", "0", "-1", "3", "1" + "0" * 30, "1e308", "NaN", '""', '"x"', '"{"', '"x:y"',
    '"../../x"', '"\\ud800"', f'"{"a" * 5000}"', "[]", "[[]]", '[1, "x"]', "{}", '{"x": {}}',
    "[" * 400 + "]" * 400,
]  # fmt: skip


def shown(path: Path) -> None:
    with open_audit(path) as store:
        if store.sessions():
            Console(file=io.StringIO(), width=80).print(frame(read(store), 24))


def explained(path: Path) -> None:
    with open_audit(path) as store:
        names = [parameter.name for parameter in store.parameters()]
        found = find_element(store, names[0], [0], 1, lambda done, total: None)
        explain(found.element, found.trained_again)


def replayed(path: Path) -> None:
    with open_audit(path) as store:
        replay(store, 0, 1, lambda done, total: None)


def commands(folder: Path, sound: Path) -> Iterator[Dict[str, Callable[[Path], Any]]]:
    """Yield, for one audit after the other, the commands that it is given to.

    They are the quick ones, and one of the others in turn.
    """
    quick: Dict[str, Callable[[Path], Any]] = {
        "check": check_ledger,
        "compare": lambda path: compare_audits(path, sound),
        "watch": shown,
    }
    others: Dict[str, Callable[[Path], Any]] = {
        "report": lambda path: write_report([path], folder / "page.html"),
        "csv": lambda path: export(path, "csv", folder / "csv"),
        "tensorboard": lambda path: export(path, "tensorboard", folder / "events"),
        "explain": explained,
        "replay": replayed,
    }
    for name in cycle(others):
        yield {**quick, name: others[name]}


def damaged(folder: Path, count: int, seed: int = SEED) -> Iterator[Path]:
    """Yield so many damaged audits: every other one has bytes changed, or values in its tables.

    Of these, half have their chain made anew, as by a forger.
    """
    two = [{"iterations": 4}, {"iterations": 3, "start": 2}]
    sound = [write_sessions(folder / "two.sqlite", two), OLD / "run/audit.sqlite"]
    bytes_changed = mutations([path.read_bytes() for path in sound], TOKENS, -(-count // 2), seed)
    rng, forger = random.Random(seed), random.Random(seed)
    path = folder / "damaged.sqlite"
    for number in range(count):
        if number % 2:
            shutil.copy(sound[number // 2 % 2], path)
            change_values(path, rng)
            if number % 4 == 1:
                shutil.copy(sound[number // 4 % 2], path)
                forge(path, forger)
        else:
            path.write_bytes(next(bytes_changed))
        yield path


def opened(path: Path) -> sqlite3.Connection:
    """Open an audit to change it, without a wait for the disk."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def change_values(path: Path, rng: random.Random) -> None:
    """Put something else into one to three values of an audit."""
    connection = opened(path)
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


def forge(path: Path, rng: random.Random) -> None:
    """Put something else into one to three places of a manifest, or into the tables."""
    if rng.random() < 0.3:
        change_values(path, rng)
    connection = opened(path)
    (text,) = connection.execute("SELECT manifest FROM sessions").fetchone()
    with suppress(ValueError, TypeError):  # what stands there now is no JSON
        manifest = json.loads(text)
        for _ in range(rng.randint(1, 3)):
            manifest = changed(manifest, rng)
        connection.execute("UPDATE sessions SET manifest = ?", [json.dumps(manifest)])
    with suppress(struct.error, TypeError, ValueError, sqlite3.Error):  # nobody could hash that
        chain_anew(connection)
    connection.commit()
    connection.close()


def changed(value: Any, rng: random.Random) -> Any:
    """Return a value of JSON with something else at a place in it, seldom in place of all of it."""
    keys: List[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    if not keys or rng.random() < 0.05:
        return json.loads(rng.choice(NONSENSE))
    key = rng.choice(keys)
    value[key] = changed(value[key], rng)
    return value


def unexpected(folder: Path, paths: Iterable[Path]) -> List[str]:
    """Return what reading these audits raised besides refusals."""
    sound = write_audit(folder / "sound.sqlite", 4)
    found = []
    for number, (path, given) in enumerate(zip(paths, commands(folder, sound))):
        for name, command in given.items():
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
    assert unexpected(workdir, damaged(workdir, 40)) == []


@pytest.mark.parametrize("where", ["sessions SET session", "parameters SET name"])
def test_a_long_text_in_place_of_a_number_or_a_name_is_shown_in_short(
    workdir: Path, where: str
) -> None:
    path = Path(shutil.copy(OLD / "run/audit.sqlite", workdir / "long.sqlite"))
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE {where} = ?", ["{" * 5000])
    connection.commit()
    connection.close()
    assert unexpected(workdir, [path]) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_ten_thousand_damaged_files_are_refused(workdir: Path, seed: int) -> None:
    assert unexpected(workdir, damaged(workdir, 500, seed)) == []
