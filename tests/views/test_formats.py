"""Export: what CSV, Parquet and TensorBoard's own reader give back is what the audit holds."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from helpers.audits import ENDED, write_audit, write_sessions
from helpers.large import write_large_audit
from helpers.nets import write_solver

from caffe_pysgd import get_solver
from caffe_pysgd.audit import scan
from caffe_pysgd.audit.schema import COLUMNS, OF_AN_UPDATE
from caffe_pysgd.audit.store import FIGURES, Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.views.export import FORMATS, export
from caffe_pysgd.views.export.tables import Selection

SESSIONS: List[Dict[str, Any]] = [
    dict(iterations=70, ended=None),
    dict(start=60, iterations=45, seed=2, nonfinite_at=80, every=5),
]


@pytest.fixture
def audit(workdir: Path) -> Path:
    """An audit of two sessions, of which the second went on from within the first."""
    return write_sessions(workdir / "audit.sqlite", SESSIONS)


@pytest.fixture
def real_run(workdir: Path) -> Path:
    """The audit of a real training, with histograms."""
    write_solver(workdir, max_iter=7, snapshot_prefix="snap")
    audit = "audit: {every: 1, histograms: 3}"
    Path("run.yaml").write_text(f"solver: solver.prototxt\nrun_dir: run\n{audit}\n")
    solver = get_solver("run.yaml")
    solver.solve()
    del solver
    return Path("run", "audit.sqlite")


def expected(audit: Path, table: str) -> List[Dict[str, Any]]:
    """Read a table as the views of the audit itself give it, with the parameters' names."""
    with Store(audit) as store:
        columns = ", ".join(COLUMNS[table])
        source = table if table in ("sessions", "parameters") else f"current_{table}"
        names = {p.parameter: p.name for p in store.parameters()}
        rows = [
            dict(zip(COLUMNS[table], row)) for row in store.query(f"SELECT {columns} FROM {source}")
        ]
    for row in rows:
        if "parameter" in row and table != "parameters":
            row["name"] = names[row["parameter"]]
    return rows


def in_order(rows: List[Dict[str, Any]]) -> List[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def test_parquet_gives_back_every_row(audit: Path, workdir: Path) -> None:
    import pyarrow.parquet  # here: one that does not go with this NumPy fails this test alone

    files = export(audit, "parquet", workdir / "out")
    assert [file.stem for file in files] == list(COLUMNS)
    for file in files:
        rows = pyarrow.parquet.read_table(file).to_pylist()
        assert in_order(rows) == in_order(expected(audit, file.stem))
    assert len(pyarrow.parquet.read_table(workdir / "out" / "iterations.parquet")) == 105


@pytest.mark.parametrize("by", ["orjson", "csv"])
def test_csv_gives_back_every_row(
    audit: Path, workdir: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "csv":
        monkeypatch.setitem(sys.modules, "orjson", None)
    for file in export(audit, "csv", workdir / "out"):
        assert in_order(read_csv(file)) == in_order(expected(audit, file.stem))


def read_csv(file: Path) -> List[Dict[str, Any]]:
    """Read a table's file with the types of the audit."""
    convert = {"i": int, "r": float, "t": str}
    kinds = {**COLUMNS[file.stem], "name": "t"}
    with open(file, newline="", encoding="utf-8") as lines:
        return [
            {
                name: None if text == "" and kinds[name].isupper()
                else convert[kinds[name].lower()](text)
                for name, text in row.items()
            }
            for row in csv.DictReader(lines)
        ]  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        [1.5, None, 0.0, 5e-324, 1e-5, 1e16, 1e23, 123456789012345680.0, 2.0],
        [1.5, float("inf"), None],  # which JSON does not know
        [float("-inf"), 1.5],
    ],
)
@pytest.mark.parametrize(
    "output", ["loss", "null", "a,null", 'an "own"', "-loss", "verlust_\u00fc"]
)
def test_csv_gives_back_every_number_and_text(
    audit: Path, workdir: Path, values: List[float], output: str
) -> None:
    with sqlite3.connect(audit) as connection:
        connection.execute("DELETE FROM tests")
        (session,) = connection.execute("SELECT max(session) FROM sessions").fetchone()
        rows = [(session, 70 + n, 0, 0, output, value) for n, value in enumerate(values)]
        connection.executemany("INSERT INTO tests VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    export(audit, "csv", workdir / "out")
    found = read_csv(workdir / "out" / "tests.csv")
    assert [row["output"].lstrip("'") for row in found] == [output] * len(values)
    assert [repr(row["value"]) for row in found] == [repr(value) for value in values]


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(
        str(folder), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0}
    )
    return events.Reload()


def test_tensorboard_reads_every_scalar(audit: Path, workdir: Path) -> None:
    (file,) = export(audit, "tensorboard", workdir / "out")
    assert "tfevents" in file.name
    events = read_events(workdir / "out")
    found = {
        tag: {event.step: np.float32(event.value) for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }
    with Store(audit) as store:
        series = {
            "loss/batch": store.series("loss"),
            "loss/averaged": store.series("smoothed_loss"),
            "run/rate": store.series("rate"),
            "run/gradient_l2": store.series("gradient_l2"),
            "run/clip_factor": store.series("clip_factor"),
            "seconds/update": store.series("update_seconds"),
            "seconds/forward_and_backward": store.series("pass_seconds"),
        }
        for (net, output), scores in store.tests().items():
            series[f"test/{net}/{output}"] = scores
        for p in store.parameters():
            for tag, column in [("update_to_data", "ratio"), ("local_rate", "local_rate")]:
                series[f"{tag}/{p.name}"] = store.updates(p.parameter, column)
            for quantity in store.quantities(p.parameter):
                for figure in FIGURES:
                    one = store.figures(p.parameter, quantity, figure)
                    series[f"{quantity}_{figure}/{p.name}"] = one
    for tag, (steps, values) in series.items():
        there = ~np.isnan(values)
        # An event file holds float32.
        assert found.pop(tag) == dict(zip(steps[there].tolist(), values[there].astype(np.float32)))
    assert found == {}
    began, ended = (events.Scalars("run/rate")[index].wall_time for index in (0, -1))
    assert 0 < ended - began < 60


def test_tensorboard_reads_the_histograms_of_a_real_run(real_run: Path, workdir: Path) -> None:
    export(real_run, "tensorboard", workdir / "out")
    events = read_events(workdir / "out")
    rows = expected(real_run, "histograms")
    assert {row["iteration"] for row in rows} == {0, 3, 6}
    with Store(real_run) as store:
        counts = {p.name: p.count for p in store.parameters()}
        sums = {
            (row["iteration"], row["parameter"], row["quantity"]): row
            for row in store.rows("figures")
        }
    read = {
        (tag, event.step): event.histogram_value
        for tag in events.Tags()["histograms"]
        for event in events.Histograms(tag)
    }
    assert len(read) == len(rows)
    for row in rows:
        histogram = read[f"{row['quantity']}/{row['name']}", row["iteration"]]
        bins = json.loads(row["counts"])
        assert list(histogram.bucket) == [0, *bins]
        limits = np.linspace(row["low"], row["high"], len(bins) + 1)
        assert list(histogram.bucket_limit) == pytest.approx(limits, abs=1e-9, rel=1e-9)
        assert (histogram.min, histogram.max) == (row["low"], row["high"])
        assert histogram.num == sum(bins) == counts[row["name"]]
        figures = sums[row["iteration"], row["parameter"], row["quantity"]]
        assert histogram.sum == figures["mean"] * counts[row["name"]]
        assert histogram.sum_squares == pytest.approx(figures["l2"] ** 2, rel=1e-15)


@pytest.mark.parametrize("format", FORMATS)
def test_exporting_again_replaces_and_leaves_the_rest(
    audit: Path, workdir: Path, format: str
) -> None:
    other = workdir / "out" / "mine.txt"
    other.parent.mkdir()
    other.write_text("mine")
    first = export(audit, format, workdir / "out")
    before = {file.name: file.stat().st_size for file in other.parent.iterdir()}
    assert export(audit, format, workdir / "out") == first
    assert {file.name: file.stat().st_size for file in other.parent.iterdir()} == before
    assert other.read_text() == "mine"
    assert set(before) == {file.name for file in first} | {"mine.txt"}


def test_it_reads_an_audit_that_is_being_written(workdir: Path) -> None:
    audit = write_audit(workdir / "audit.sqlite", 10, ended=None)
    writer = sqlite3.connect(audit, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE sessions SET ended = ?", [ENDED])
    export(audit, "csv", workdir / "out")
    writer.execute("ROLLBACK")
    writer.close()
    assert (workdir / "out" / "iterations.csv").read_text().count("\n") == 11


def test_what_cannot_be_exported_is_said(workdir: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        export(Path("nowhere"), "csv", Path("out"))
    audit = write_audit(workdir / "audit.sqlite", 2)
    Path("file").write_text("")
    with pytest.raises(UserError, match="file: is a file; give a folder"):
        export(audit, "csv", Path("file"))


def test_a_layer_called_like_a_formula_is_none_in_csv(workdir: Path) -> None:
    names = ["=cmd|' /C calc'!A0/0", "+1/0", "-x/0", "@y/0", "conv/0"]
    audit = write_audit(workdir / "audit.sqlite", 2, parameters=[(name, (2,)) for name in names])
    export(audit, "csv", workdir / "out")
    with open(workdir / "out/parameters.csv", newline="", encoding="utf-8") as file:
        written = [row["name"] for row in csv.DictReader(file)]
    assert written == [*(f"'{name}" for name in names[:-1]), "conv/0"]


SELECTED = Selection(parameters=("conv1/*", "ip1/1"), quantities=("gradient", "data"), every=4)


def test_parameters_quantities_and_iterations_can_be_chosen(audit: Path, workdir: Path) -> None:
    import pyarrow.parquet

    told: List[Any] = []
    files = export(
        audit, "parquet", workdir / "out", SELECTED, lambda *progress: told.append(progress)
    )
    for file in files:
        rows = [
            row
            for row in expected(audit, file.stem)
            if row.get("name") in (None, "conv1/0", "conv1/1", "ip1/1")
            and row.get("quantity") in (None, "gradient", "data")
            and (file.stem not in ("iterations", *OF_AN_UPDATE) or row["iteration"] % 4 == 0)
        ]
        assert in_order(pyarrow.parquet.read_table(file).to_pylist()) == in_order(rows)
        assert rows or file.stem in ("weights", "histograms", "probes", "snapshots")
    done, total = told[-1]
    assert done == total == len(told)


def test_tensorboard_gets_what_is_chosen(audit: Path, workdir: Path) -> None:
    export(audit, "tensorboard", workdir / "out", SELECTED)
    events = read_events(workdir / "out")
    tags = events.Tags()["scalars"]
    assert {tag for tag in tags if "ip1" in tag} == {
        f"{kind}/ip1/1"
        for kind in (
            "local_rate",
            "update_to_data",
            *(f"{q}_{f}" for q in SELECTED.quantities for f in FIGURES),
        )
    }
    assert {event.step % 4 for event in events.Scalars("loss/batch")} == {0}


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(parameters=("conv9*",)), "no parameter is called 'conv9*'"),
        (Selection(quantities=("gradeint",)), "did you mean 'gradient'"),
    ],
)
def test_what_is_not_there_cannot_be_chosen(audit: Path, selection: Selection, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        export(audit, "csv", Path("out"), selection)
    assert not Path("out").exists()


@pytest.mark.parametrize("format", ["csv", "tensorboard"])
def test_several_processes_write_what_one_writes(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    run = write_large_audit(workdir / "run", iterations=60)
    written = []
    for worth in (10**9, 0):
        monkeypatch.setattr(scan, "_WORTH_A_PROCESS", worth)
        files = export(run, format, workdir / str(worth))
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]
    assert sum(map(len, written[0])) > 1_000_000
