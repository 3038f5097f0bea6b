"""The ledger: whatever is changed in it afterwards is found, and where."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from helpers.recorded_runs import TESTED, change, dump, rows, write_recorded

import caffe_pysgd
from caffe_pysgd.audit.check import Checked, check_ledger
from caffe_pysgd.audit.recorder import Recorder
from caffe_pysgd.audit.schema import COLUMNS, IN_BETWEEN, KEYS, OF_AN_UPDATE
from caffe_pysgd.errors import UserError

OPTIONS = "{weights_every: 2, histograms: 3, probes: [{param: conv/0, index: [0, 1, 2, 2]}]}"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit with rows in every table, of two sessions."""
    directory = tmp_path_factory.mktemp("ledger")
    source = write_recorded(directory, OPTIONS, max_iter=8, **TESTED)
    for snapshot in (None, f"{directory}/run_snap_iter_4.solverstate"):
        solver = caffe_pysgd.get_solver(source)
        if snapshot:
            solver.restore(snapshot)
        solver.step(6)
        recorder = next(o for o in solver.updater.observers if isinstance(o, Recorder))
        recorder.event(None, "note", "after the last iteration")
        solver.close()
        del solver
    file = directory / "run" / "audit.sqlite"
    assert not Path(f"{file}-wal").exists()
    assert all(dump(file, COLUMNS).values())
    return file


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(recorded, tmp_path / "audit.sqlite"))


def test_what_was_recorded_is_intact(recorded: Path) -> None:
    found = check_ledger(recorded)
    assert (found.intact, found.sessions, found.iterations) == (True, 2, 12), found.reason
    assert found.last_iteration == 9
    ((closing,),) = rows(recorded, "SELECT closing FROM sessions WHERE session = 2")
    assert found.last_hash == closing


def other(value: Any, kind: str) -> Any:
    """Return another value of the same kind."""
    if value is None:
        return 1.5 if kind == "R" else "x"
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    # The last bit of a number counts as much as the first.
    bits = struct.unpack("<q", struct.pack("<d", value))[0] ^ 1 if kind in "rR" else 0
    return struct.unpack("<d", struct.pack("<q", bits))[0] if kind in "rR" else value + 1


def named(table: str, row: Dict[str, Any], all_iterations: List[int]) -> Optional[int]:
    """Return the iteration that a check should name when this row is changed."""
    if table in ("iterations", *OF_AN_UPDATE):
        return int(row["iteration"])
    if table in IN_BETWEEN:  # the hash of the iteration that follows covers it
        later = [i for i in all_iterations if i >= row["iteration"]]
        return min(later) if later else int(row["iteration"])
    return None


@pytest.mark.parametrize("table", COLUMNS)
def test_each_changed_value_is_found_and_its_iteration_named(copy: Path, table: str) -> None:
    generator = random.Random(table)
    connection = sqlite3.connect(copy, isolation_level=None)
    cells = [(c, k) for c, k in COLUMNS[table].items() if c not in KEYS[table]]
    for column, kind in cells:
        found = connection.execute(f"SELECT * FROM {table}").fetchall()
        for values in generator.sample(found, min(4, len(found))):
            row = dict(zip(COLUMNS[table], values))
            where = " AND ".join(f"{key} = ?" for key in KEYS[table])
            key = [row[name] for name in KEYS[table]]
            change = f"UPDATE {table} SET {column} = ? WHERE {where}"
            connection.execute(change, [other(row[column], kind), *key])
            checked = check_ledger(copy)
            assert not checked.intact, (table, column, row)
            iterations = rows(copy, "SELECT iteration FROM iterations WHERE session = ?", key[0])
            if column not in ("closing", "ended"):
                assert checked.session == row["session"]
                expected = named(table, row, [i for (i,) in iterations])
                assert checked.iteration == expected, (table, column, row, checked)
            connection.execute(change, [row[column], *key])
    connection.close()
    assert check_ledger(copy).intact


@pytest.mark.parametrize("table", [table for table in COLUMNS if table != "sessions"])
def test_a_row_that_is_removed_moved_or_added_is_found(copy: Path, table: str) -> None:
    where = " AND ".join(f"{key} = ?" for key in KEYS[table])
    found = rows(copy, f"SELECT {', '.join(KEYS[table])} FROM {table}")
    for key in random.Random(table).sample(found, 3 if len(found) > 3 else 1):
        for sql in (
            f"DELETE FROM {table} WHERE {where}",
            *(f"UPDATE {table} SET {k} = {k} || '7' WHERE {where}" for k in KEYS[table]),
        ):
            original = copy.read_bytes()
            change(copy, sql, *key)
            checked = check_ledger(copy)
            assert not checked.intact, (sql, key)
            copy.write_bytes(original)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM sessions WHERE session = 1",
        "DELETE FROM sessions WHERE session = 2",
        "UPDATE sessions SET session = 3 WHERE session = 2",
        "DELETE FROM iterations WHERE session = 2",
        "DELETE FROM iterations WHERE session = 2 AND iteration = 9",
        "UPDATE sessions SET ended = NULL, closing = NULL WHERE session = 2",
        "UPDATE figures SET l2 = 'much' WHERE iteration = 5",
        "UPDATE events SET message = x'ff00'",
        "INSERT INTO events VALUES (1, 3, 99, 'forged', 'nothing happened here')",
        "INSERT INTO snapshots VALUES (9, 3, 'no session', NULL)",
    ],
)
def test_larger_changes_are_found(copy: Path, sql: str) -> None:
    change(copy, sql)
    assert not check_ledger(copy).intact


def flip(file: Path, position: int, bit: int) -> None:
    with open(file, "r+b") as opened:
        opened.seek(position)
        (byte,) = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 1 << bit]))


def test_a_flipped_bit_of_a_recorded_value_is_found_and_its_iteration_named(copy: Path) -> None:
    """In the file itself, with SQLite's back turned."""
    content = copy.read_bytes()
    generator = random.Random(1)
    sql = "SELECT session, iteration, l2, mean, min, max FROM figures"
    found = generator.sample(rows(copy, sql), 60)
    tried = 0
    for session, iteration, *figures in found:
        value = struct.pack(">d", generator.choice(figures))
        if content.count(value) != 1:  # a short form, or another row says the same
            continue
        flip(copy, content.index(value) + generator.randrange(8), generator.randrange(8))
        checked = check_ledger(copy)
        assert (checked.intact, checked.session, checked.iteration) == (False, session, iteration)
        copy.write_bytes(content)
        tried += 1
    assert tried > 30


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(recorded: Path, copy: Path) -> None:
    original, content = dump(recorded, COLUMNS), copy.read_bytes()
    generator = random.Random(2)
    found = 0
    for _ in range(250):
        flip(copy, generator.randrange(len(content)), generator.randrange(8))
        intact = is_intact(copy)
        if intact:
            assert dump(copy, COLUMNS) == original
        found += not intact
        copy.write_bytes(content)
    assert found > 100


def is_intact(file: Path) -> bool:
    try:
        return check_ledger(file).intact
    except UserError:  # not even recognizable as an audit
        return False


def test_a_file_that_is_cut_short_is_found(recorded: Path, copy: Path) -> None:
    content = recorded.read_bytes()
    for part in (0.25, 0.5, 0.9):
        copy.write_bytes(content[: int(len(content) * part)])
        assert not is_intact(copy)


def test_it_says_in_one_line_what_it_found() -> None:
    lines: List[Tuple[Checked, str]] = [
        (Checked(True, 1, 2, 1, "ab"), "intact: 1 session, 2 iterations up to 1, last hash ab"),
        (Checked(True, 0, 0, None, "ab"), "intact: 0 sessions, 0 iterations, last hash ab"),
        (
            Checked(False, 0, 2, 1, "ab", 1, 2, "why"),
            "broken at iteration 2 in session 1: why",
        ),
        (Checked(False, 0, 0, None, "ab", 1, None, "why"), "broken in session 1: why"),
    ]
    for checked, line in lines:
        assert str(checked) == line
