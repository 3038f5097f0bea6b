"""A recorded run from Python: tables, plots and the report."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.audits import PARAMETERS, write_audit
from helpers.failures import refusal

from caffe_pysgd import UserError, open_run
from caffe_pysgd.views.recorded_run import RecordedRun


@pytest.fixture
def run(workdir: Path) -> RecordedRun:
    write_audit(workdir / "runs" / "a" / "audit.sqlite", 30)
    return open_run("runs/a")


def test_a_run_is_shown_in_a_line(run: RecordedRun) -> None:
    assert repr(run).startswith("<RecordedRun runs/a: iterations 0 to 29, loss ")
    assert "<td>parameter conv1/0</td>" in run._repr_html_()
    assert run.parameters == [name for name, _ in PARAMETERS]
    assert run.manifest == {"command": ["train", "x"]}


def test_its_tables_are_pandas(run: RecordedRun) -> None:
    frame = run.to_pandas()
    with sqlite3.connect("runs/a/audit.sqlite") as audit:
        losses = [loss for (loss,) in audit.execute("SELECT loss FROM iterations")]
    assert list(frame.index) == list(range(30))
    assert frame.loss.tolist() == losses
    figures = run.to_pandas("figures")
    assert set(figures.name) == {name for name, _ in PARAMETERS}
    assert "got 'figure'; expected one of" in refusal(run.to_pandas, "figure")


def test_its_plots_are_drawn_from_the_record(
    run: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    (line,) = run.plot("loss").lines
    assert np.array_equal(line.get_ydata(), run.to_pandas().loss)
    axes = run.plot_parameters(match="conv*")
    assert [line.get_label() for line in axes.lines] == ["conv1/0", "conv1/1"]
    assert axes.get_yscale() == "log"
    with pytest.raises(UserError, match="match: got 'convv'; expected one of conv1/0"):
        run.plot_parameters(match="convv")


def test_its_report_is_written(run: RecordedRun) -> None:
    assert run.report() == Path("runs/a/report.html")
    assert run.report("page.html", check=False) == Path("page.html")
    assert "<html" in Path("page.html").read_text()


def test_what_is_missing_is_said_in_a_line(run: RecordedRun, monkeypatch: Any) -> None:
    assert "there is no such file" in refusal(open_run, "runs/b")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert refusal(run.to_pandas).endswith("pip install 'caffe-pysgd[notebook]'")
