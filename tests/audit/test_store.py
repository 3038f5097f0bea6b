"""The store: what readers get, and what they are told where there is nothing to read."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers.nets import DATA
from helpers.recorded_runs import TESTED, change, record_iterations, write_recorded

import caffe_pysgd
from caffe_pysgd.audit.schema import COLUMNS, KEYS
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: iterations 0 to 6, and from the snapshot at 4 again to 8."""
    directory = tmp_path_factory.mktemp("store")
    source = write_recorded(directory, "{every: 1, weights_every: 4}", max_iter=20, **TESTED)
    for snapshot, steps in ((None, 7), ("run_snap_iter_4.solverstate", 5)):
        solver = caffe_pysgd.get_solver(source)
        if snapshot:
            solver.restore(str(directory / snapshot))
            solver.base_lr = 0.02
        solver.step(steps)
        solver.close()
    return directory / "run"


def test_of_iterations_recorded_twice_the_later_ones_count(resumed: Path) -> None:
    with Store(resumed) as store:
        iterations, rates = store.series("rate")
        assert list(iterations) == list(range(9))
        assert list(rates) == [np.float32(0.01)] * 4 + [np.float32(0.02)] * 5
        assert store.span()[1] == 8
        found = {(row["session"], row["iteration"]) for row in store.rows("figures")}
        assert found == {(1, i) for i in range(4)} | {(2, i) for i in range(4, 9)}
        for table in ("updates", "weights"):
            sessions = {row["session"] for row in store.rows(table) if row["iteration"] >= 4}
            assert sessions <= {2}
        # What was there when the second session began belongs to both.
        tested = [(row["session"], row["iteration"]) for row in store.rows("tests")]
        assert tested == [(1, 0), (1, 2), (2, 4), (2, 6), (2, 8)]
        snapshots = {(row["session"], row["iteration"]) for row in store.rows("snapshots")}
        assert snapshots == {(1, 4), (2, 8)}


def test_it_names_parameters_quantities_and_outputs(resumed: Path) -> None:
    with Store(resumed / "audit.sqlite") as store:
        names = [p.name for p in store.parameters()]
        assert names == ["conv/0", "conv/1", "hidden/0", "hidden/1", "out/0"]
        conv = store.parameters(session=1)[0]
        assert (conv.shape, conv.count, conv.rule) == ((5, 2, 3, 3), 90, "sgd")
        assert store.quantities(0) == ["data", "gradient", "history", "regularized", "update"]
        (key,) = store.tests()
        assert key == (0, "loss")
        assert list(store.tests()[key][0]) == [0, 2, 4, 6, 8]
        iterations, norms = store.figures(0, "gradient", "l2")
        assert len(iterations) == len(norms) == 9
        assert (norms > 0).all()
        assert [s.start_iteration for s in store.sessions()] == [0, 4]
        assert math.isnan(store.series("clip_factor")[1][0])
        with pytest.raises(KeyError):
            store.series("no_such_column")


def test_an_output_of_several_values_has_one_series_for_each(tmp_path: Path) -> None:
    net = "name: 'n'" + DATA + "layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip'\n"
    net += "inner_product_param { num_output: 3 weight_filler { type: 'xavier' } } }\n"
    net += (
        "layer { name: 'loss' type: 'EuclideanLoss' bottom: 'ip' bottom: 'target' top: 'loss' }\n"
    )
    net += "layer { name: 'mean' type: 'Reduction' bottom: 'data' top: 'mean'\n"
    net += "reduction_param { operation: MEAN axis: 1 } include { phase: TEST } }\n"
    record_iterations(write_recorded(tmp_path, net=net, **TESTED), 1)
    with Store(tmp_path / "run") as store:
        names = [f"mean[{number}]" for number in range(1, 7)]
        assert list(store.tests()) == [(0, "loss"), *((0, name) for name in names)]


def test_a_reader_cannot_write(resumed: Path) -> None:
    with Store(resumed) as store, pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.connection.execute("DELETE FROM figures")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_can_be_read(resumed: Path, tmp_path: Path) -> None:
    shutil.copy(resumed / "audit.sqlite", tmp_path)
    tmp_path.chmod(0o500)
    with Store(tmp_path) as store:
        assert store.span()[1] == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file; give an audit or a run directory"),
        (b"", "is no audit of caffe-pysgd"),
        (b"not a database at all, but long enough to look at" * 100, "cannot be read as an audit"),
    ],
)
def test_what_is_no_audit_is_told_so(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "audit.sqlite"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        Store(file)


def test_a_later_format_is_told_so(resumed: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(resumed / "audit.sqlite", tmp_path))
    change(file, "PRAGMA user_version = 2")
    with pytest.raises(UserError, match="is an audit in format 2, this caffe-pysgd reads 1"):
        Store(file)


def test_every_key_begins_its_table(resumed: Path) -> None:
    """The recorder sorts rows as tuples, SQLite sorts them by their key: the same order."""
    for table, columns in COLUMNS.items():
        assert tuple(columns)[: len(KEYS[table])] == KEYS[table]
