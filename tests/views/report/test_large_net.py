"""A net with 202 parameter blobs: found, sorted and folded; what stands out; several runs of it."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any, Callable, List
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.audits import write_audit
from helpers.browser import Opened
from helpers.large import write_large_audit
from helpers.recorded_runs import change

from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.views.report import write_report
from caffe_pysgd.views.report.gathering import gather
from caffe_pysgd.views.report.remarks import remarks

DEAD, SLOW, GROWING = "scale3b_branch2a/0", "conv2a_branch1/0", "conv5b_branch2c/0"
ROWS = "[...document.querySelectorAll('#stripes [data-parameter]')].map(r => r.dataset.parameter)"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the audit of 70 iterations, and the report of it."""
    folder = tmp_path_factory.mktemp("large")
    write_large_audit(folder, iterations=70, histograms=20)
    write_report([folder])
    return folder


@pytest.fixture
def page(opened: Callable, large: Path) -> Any:
    return opened(large / "report.html").page


def test_the_page_of_a_large_net_is_small(opened: Callable, large: Path) -> None:
    assert (large / "report.html").stat().st_size < 4_000_000
    page: Opened = opened(large / "report.html")
    assert page.blank_charts() == []
    assert page.page.evaluate("document.documentElement.scrollHeight") < 6000


@pytest.mark.parametrize("width", [420, 1280])
def test_it_does_not_reach_over_the_edge(opened: Callable, large: Path, width: int) -> None:
    page = opened(large / "report.html", width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_weights_and_statistics_are_apart(page: Any, large: Path) -> None:
    with Store(large) as store:
        weights = [p.name for p in store.parameters() if not p.statistic]
        statistics = [p.name for p in store.parameters() if p.statistic]
    assert page.evaluate(ROWS) == weights
    page.check("#statistics")
    assert page.evaluate(ROWS) == weights + statistics
    assert "Running statistics of BatchNorm" in page.inner_text("#stripes")


def test_every_stripe_is_coloured(page: Any) -> None:
    blank = """stripes.canvases.filter(([canvas]) => {
      const { width, height } = canvas;
      const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
      return !pixels.some((value, i) => i % 4 === 3 && value);
    }).length"""
    assert page.evaluate(blank) == 0


def test_parameters_are_found_by_words(page: Any) -> None:
    page.fill("#search", "branch2a conv")
    shown = page.evaluate(ROWS)
    assert shown and all("branch2a" in name and "conv" in name for name in shown)
    assert page.inner_text("#found") == f"{len(shown)} of 103 parameters"
    page.fill("#search", "nowhere")
    assert page.evaluate(ROWS) == []


def test_they_are_sorted_by_what_is_worth_a_look(page: Any, large: Path) -> None:
    with Store(large) as store:
        largest = {
            p.name: float(np.float32(store.updates(p.parameter, "ratio")[1].max()))
            for p in store.parameters()
            if not p.statistic
        }
    page.select_option("#sort", "largest")
    by_size = sorted(largest, key=lambda name: -largest[name])
    assert page.evaluate(ROWS)[:20] == by_size[:20]
    for order, first in [("smallest", SLOW), ("zeros", DEAD), ("grown", GROWING)]:
        page.select_option("#sort", order)
        assert page.evaluate(ROWS)[0] == first
    page.select_option("#sort", "order")
    assert page.evaluate(ROWS)[0] == "conv1/0"


def test_layers_fold(page: Any) -> None:
    toggle = page.locator("button.layer").first
    layer = toggle.get_attribute("data-layer")
    inside = page.locator(f"tr[data-parameter^='{layer}/']")
    assert inside.count() == 2 and toggle.get_attribute("aria-expanded") == "true"
    toggle.press("Enter")
    assert inside.count() == 0
    assert (
        page.locator(f"button.layer[data-layer='{layer}']").get_attribute("aria-expanded")
        == "false"
    )
    page.click("#fold")
    assert inside.count() == 2
    page.click("#fold")
    assert len(page.evaluate(ROWS)) == 33  # the convolutions have one parameter each


def test_what_stands_out_is_said_and_leads_there(page: Any) -> None:
    said = page.inner_text(".remarks")
    assert "1 parameter dead. The gradient is zero at every recorded iteration." in said
    assert "1 parameter barely moving" in said and "1 parameter growing" in said
    page.locator(f"[data-choose='{DEAD}']").click()
    assert page.input_value("#chosen") == DEAD


def test_histograms_are_ridges_over_time(page: Any, large: Path) -> None:
    page.select_option("#chosen", "fc1000/0")
    ridges = page.locator(".ridges").first
    with Store(large) as store:
        number = next(p.parameter for p in store.parameters() if p.name == "fc1000/0")
        rows = list(store.rows("histograms", parameter=number, quantity="data"))
    assert [row["iteration"] for row in rows] == [0, 20, 40, 60]
    assert "iterations 0, 20, 40, 60" in ridges.get_attribute("aria-label")
    assert ridges.locator("path").count() == 4
    counts = json.loads(rows[0]["counts"])
    drawn = page.evaluate(
        "[...Uint8Array.from(atob(store.runs[0].parameters.find((p) => p.name === 'fc1000/0')"
        ".histograms.data[0][3]), (c) => c.charCodeAt(0))]"
    )
    assert drawn == [round(255 * count / max(counts)) for count in counts]


def test_a_chart_is_saved_as_svg_and_png(page: Any, tmp_path: Path) -> None:
    for kind, name in [("SVG", "loss"), ("PNG", "loss"), ("SVG", "data-histograms")]:
        title = "Loss" if name == "loss" else "data, histograms"
        with page.expect_download() as saved:
            page.get_by_role("button", name=f"{title}: save as {kind}", exact=True).click()
        assert saved.value.suggested_filename == f"{name}.{kind.lower()}"
        file = tmp_path / f"{name}.{kind.lower()}"
        saved.value.save_as(file)
        if kind == "PNG":
            content = file.read_bytes()
            assert content.startswith(b"\x89PNG")
            wide, high = struct.unpack(">II", content[16:24])
            assert wide > 600 and high > 300
        else:
            root = ElementTree.parse(file).getroot()
            paths = [one.get("d") for one in root.iter("{http://www.w3.org/2000/svg}path")]
            assert paths and all(len(path) > 100 and "NaN" not in path for path in paths)


def test_smoothing_is_tensorboards(page: Any, large: Path) -> None:
    page.locator("#smoothing").fill("0.6")
    drawn = page.evaluate(
        "[...view.charts].find((c) => c.title === 'Gradient, global L2 norm')"
        ".lines.map((line) => line.s.last)"
    )
    with Store(large) as store:
        _, norms = store.series("gradient_l2")
    mean, expected = 0.0, []
    for number, value in enumerate(norms, 1):
        mean = 0.6 * mean + 0.4 * value
        expected.append(mean / (1 - 0.6**number))
    assert drawn[0] == norms.tolist()
    assert drawn[1] == pytest.approx(expected, rel=1e-12)


def test_without_scripts_the_loss_and_the_last_values_are_there(browser: Any, large: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((large / "report.html").as_uri())
    assert page.locator("noscript svg polyline").count() == 1
    with Store(large) as store:
        _, ratios = store.updates(0, "ratio")
    row = page.locator("noscript tbody tr").first.inner_text().split()
    assert row[0] == "conv1/0" and row[1] == f"{np.float64(ratios[-1]):.4g}"
    context.close()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of six runs that differ in base_lr; the last one diverges."""
    folder = tmp_path_factory.mktemp("compared")
    runs = [folder / f"run{number}" for number in range(6)]
    for number, run in enumerate(runs):
        lost = number == 5
        solver = f"base_lr: {0.01 * 2**number:g}\nmomentum: 0.9\nsnapshot_prefix: 'run{number}'\n"
        manifest = {"rule": "sgd", "solver": solver}
        write_audit(
            run / "audit.sqlite", 110, seed=number, manifest=manifest,
            nonfinite_at=60 if lost else None,
        )  # fmt: skip
    return write_report(runs, folder / "six.html")


def test_settings_that_differ_and_best_scores_come_first(opened: Callable, compared: Path) -> None:
    page = opened(compared).page
    heads = page.locator("#comparison thead th").all_inner_texts()
    assert heads[:3] == ["run", "base_lr", "last loss"] and "best accuracy" in heads
    assert "momentum" not in heads and "snapshot_prefix" not in heads

    def column(number: int) -> List[str]:
        return page.locator(f"#comparison tbody tr > :nth-child({number})").all_inner_texts()

    rates = ["0.01", "0.02", "0.04", "0.08", "0.16", "0.32"]
    assert column(2) == rates
    button = page.get_by_role("button", name="base_lr")
    button.click()
    button.click()
    assert column(2) == rates[::-1]
    losses = []
    for number in range(6):
        with Store(compared.parent / f"run{number}") as store:
            losses.append(store.series("smoothed_loss")[1][-1])
    best = page.locator("#comparison td.best").first
    assert best.inner_text() == f"{min(losses):.4g}"
    assert page.locator("#comparison .mark.bad").all_inner_texts()[0].startswith("events")
    top = page.locator("#comparison").bounding_box()
    assert page.locator("#training").bounding_box()["y"] - top["y"] < 900


def test_each_run_has_one_style_and_one_entry(opened: Callable, compared: Path) -> None:
    page = opened(compared).page
    spoken = page.evaluate(
        "[...view.charts].find((c) => c.title === 'Loss').lines.filter((l) => !l.quiet)"
        ".map((l) => [l.label, l.colour, l.dash])"
    )
    assert len({label for label, _, _ in spoken}) == len(spoken) == 6
    assert len({(colour, str(dash)) for _, colour, dash in spoken}) == 6


def test_twenty_runs_can_be_read(opened: Callable, workdir: Path) -> None:
    runs = [workdir / f"run{number}" for number in range(20)]
    for number, run in enumerate(runs):
        rule = ["sgd", "nesterov"][number % 2]
        solver = f"base_lr: {0.01 * 1.1**number:g}\ntype: '{rule.upper()}'\n"
        manifest = {"rule": rule, "solver": solver, "configuration": {"update": {"rule": rule}}}
        write_audit(run / "audit.sqlite", 12, seed=number, manifest=manifest)
    change(runs[0] / "audit.sqlite", "UPDATE iterations SET smoothed_loss = loss")
    page = opened(write_report(runs, workdir / "twenty.html", check=False)).page
    heads = page.locator("#comparison thead th").all_inner_texts()
    assert heads[:4] == ["run", "rule", "base_lr", "last loss"]
    region = page.locator("#comparison .scroll")
    assert region.evaluate("(one) => one.scrollHeight === one.clientHeight")
    top = page.locator("#comparison").bounding_box()
    assert page.locator("#training").bounding_box()["y"] - top["y"] < 1000
    labels = page.evaluate(
        "[...view.charts].find((c) => c.title === 'Loss').lines.filter((l) => !l.quiet)"
        ".map((l) => l.label)"
    )
    assert sorted(labels) == sorted(run.name for run in runs)
    said = page.locator("#training-charts .readout", has_text="20 lines, lowest and highest").first
    assert said.locator("b").count() == 2


def test_a_loss_beyond_what_can_be_labelled_leaves_the_chart(
    opened: Callable, workdir: Path
) -> None:
    write_audit(workdir / "run/audit.sqlite", 12)
    sql = "UPDATE iterations SET loss = 1e38, smoothed_loss = 1e38 WHERE iteration = 11"
    change(workdir / "run/audit.sqlite", sql)
    page = opened(write_report([workdir / "run"], check=False)).page
    ticks = page.evaluate("[...view.charts].find((c) => c.title === 'Loss').plot.axes[1]._values")
    assert ticks and "1e20" in ticks


def test_more_runs_than_a_page_takes_are_refused(workdir: Path) -> None:
    with pytest.raises(UserError, match="21 runs: a page shows up to 20; give fewer"):
        write_report([Path(f"run{number}") for number in range(21)])


def test_where_a_run_diverges_is_said(workdir: Path) -> None:
    run = write_large_audit(workdir / "run", iterations=70, diverges_at=45)
    with Store(run) as store:
        found = {remark.title: remark for remark in remarks(gather("run", store))}
        sql = "SELECT min(iteration) FROM figures WHERE nonfinite > 0"
        ((first,),) = store.query(sql)
        _, losses = store.series("smoothed_loss")
    assert f"at iteration {first}" in found["Not finite"].text
    assert "conv1/0" in found["Not finite"].parameters
    said = re.findall(r"iteration (\d+)", found["The loss diverges"].text)
    rises, above = (int(number) for number in said)
    assert losses[: rises + 1].argmin() == rises and 45 <= rises < above
    assert losses[above] > losses[0] > losses[above - 1]
    assert set(found) >= {"1 parameter dead"}


def test_a_steady_run_has_no_remark(workdir: Path) -> None:
    with Store(write_audit(workdir / "audit.sqlite", 300)) as store:
        assert remarks(gather("run", store)) == []
