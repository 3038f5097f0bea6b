"""A real training, recorded by Caffe's run itself, verified, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from helpers.nets import NORMALIZED, write_solver

from caffe_pysgd.audit.store import Store


def test_a_real_training_is_shown_as_it_was_recorded(
    cli: Callable, workdir: Path, opened: Callable
) -> None:
    write_solver(workdir, NORMALIZED, max_iter=12, snapshot_prefix="snap", test_interval=4)
    Path("run.yaml").write_text("solver: solver.prototxt\nrun_dir: run\naudit: {every: 1}\n")
    trained = cli("train", "run.yaml")
    assert trained.returncode == 0, trained.stderr
    verified = cli("verify", "run.yaml", "--json", "run/verify.json")
    assert verified.returncode == 0, verified.stderr
    reported = cli("report", "run")
    assert (reported.returncode, reported.stdout, reported.stderr) == (0, "run/report.html\n", "")
    page = opened(Path("run", "report.html"))
    assert page.blank_charts() == []
    said = page.page.inner_text(".verdicts")
    assert "The native solver's bits" in said and "Ledger intact" in said
    with Store(Path("run")) as store:
        _, losses = store.series("loss")
        parameters = [p.name + " (statistic)" * p.statistic for p in store.parameters()]
        weights = [p.name for p in store.parameters() if not p.statistic]
    assert len(losses) == 12
    assert page.page.evaluate("[...view.charts][0].lines[0].s.last") == losses.tolist()
    shown = page.chart("Loss").locator(".readout b").first.inner_text()
    assert float(shown) == float(f"{losses[-1]:.7g}")
    options = page.page.locator("#chosen option").all_inner_texts()
    assert options == parameters and len(options) > len(weights) > 2
    rows = "[...document.querySelectorAll('#stripes [data-parameter]')]"
    shown = f"{rows}.map((row) => row.dataset.parameter)"
    assert page.page.evaluate(shown) == weights
    page.page.check("#statistics")
    assert len(page.page.evaluate(shown)) == len(parameters)
