"""The page in a real browser: drawn, without a complaint, and it says what the audit says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from helpers.audits import write_audit
from helpers.browser import Opened

from caffe_pysgd.audit.store import FIGURES, Store
from caffe_pysgd.views.report import write_report

# What every chart holds, by title of the chart and place among its lines.
ORDER = ("gradient", "regularized", "history", "update", "data")
DRAWN = """() => [...view.charts].filter((chart) => chart.lines).map((chart) => ({
  title: chart.title, lines: chart.lines.map((line) => [line.label, line.x, line.s.last]),
  plotted: chart.plot.data.map((column) => [...column]),
}))"""


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the audit of 120 iterations and the report of it."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    write_audit(folder / "audit.sqlite", 120)
    assert write_report([folder]) == folder / "report.html"
    return folder


def numbers(text: str) -> List[float]:
    return [float(part.replace(",", "")) for part in re.findall(r"-?[\d,]*\.?\d+(?:e-?\d+)?", text)]


def seven(value: float) -> float:
    return float(f"{value:.7g}")


def test_every_chart_is_drawn_without_a_complaint(opened: Callable, short_run: Path) -> None:
    page = opened(short_run / "report.html")
    assert page.page.locator("canvas").count() > 20
    assert page.blank_charts() == []


def test_charts_hold_every_value_of_the_audit(opened: Callable, short_run: Path) -> None:
    charts: Dict[str, Any] = {}
    for chart in opened(short_run / "report.html").page.evaluate(DRAWN):
        charts.setdefault(chart["title"], chart)  # those of single parameters are below
    with Store(short_run) as store:
        for title, line, column in [
            ("Loss", 0, "loss"),
            ("Loss", 1, "smoothed_loss"),
            ("Learning rate", 0, "rate"),
            ("Gradient, global L2 norm", 0, "gradient_l2"),
            ("Time per iteration", 0, "pass_seconds"),
        ]:
            iterations, values = store.series(column)
            _, x, last = charts[title]["lines"][line]
            assert (x, last) == (iterations.tolist(), values.tolist())
        iterations, values = store.tests()[0, "accuracy"]
        assert charts["Test scores"]["plotted"] == [iterations.tolist(), values.tolist()]
        page = opened(short_run / "report.html").page
        for parameter in store.parameters():
            page.select_option("#chosen", parameter.name)
            drawn = {}
            for chart in page.evaluate(DRAWN):
                drawn.setdefault(chart["title"], []).append(chart["plotted"])
            iterations, ratios = store.updates(parameter.parameter, "ratio")
            assert drawn["|update| / |data|"] == [[iterations.tolist(), ratios.tolist()]]
            norms = [store.figures(parameter.parameter, q, "l2") for q in ORDER]
            assert drawn["L2 norm"] == [[at.tolist(), l2.tolist()] for at, l2 in norms]


def test_each_figure_of_a_parameter_can_be_chosen_for_the_stripes(
    opened: Callable, short_run: Path
) -> None:
    page = opened(short_run / "report.html").page
    stripe = "stripes.canvases.find(([, , row]) => row.p.name === 'ip1/0')[1][0].last"
    with Store(short_run) as store:
        for quantity in store.quantities(2):
            page.select_option("#quantity", quantity)
            for figure in FIGURES:
                page.select_option("#figure", figure)
                _, values = store.figures(2, quantity, figure)
                assert page.evaluate(stripe) == values.tolist()


def test_keys_read_values_from_a_chart(opened: Callable, short_run: Path) -> None:
    page = opened(short_run / "report.html")
    plot = page.chart("Gradient, global L2 norm").locator(".plot")
    plot.focus()
    with Store(short_run) as store:
        iterations, norms = store.series("gradient_l2")
        _, losses = store.series("loss")
        at = 0
        for key, by in [
            ("Home", 0),
            ("ArrowRight", 1),
            ("Shift+ArrowRight", 10),
            ("ArrowLeft", -1),
        ]:
            plot.press(key)
            at += by
            page.settle()
            shown = page.chart("Gradient, global L2 norm").locator(".readout").inner_text()
            assert numbers(shown) == [iterations[at], seven(norms[at])]
            # The others read out the same iteration.
            shown = page.chart("Loss").locator(".readout").inner_text()
            assert numbers(shown)[:2] == [iterations[at], seven(losses[at])]


def test_a_value_from_another_iteration_says_so(opened: Callable, short_run: Path) -> None:
    page = opened(short_run / "report.html")
    plot = page.chart("Loss").locator(".plot")
    plot.press("Home")
    for _ in range(6):
        plot.press("Shift+ArrowRight")
    page.settle()
    with Store(short_run) as store:
        _, losses = store.series("loss")
        _, averaged = store.series("smoothed_loss")
        tested, scores = store.tests()[0, "loss"]
    shown = numbers(page.chart("Loss").locator(".readout").inner_text())
    assert tested[0] == 50
    assert shown == [60, seven(losses[60]), seven(averaged[60]), seven(scores[0]), 50]


def test_the_pointer_reads_and_zooms(opened: Callable, short_run: Path) -> None:
    opened_page = opened(short_run / "report.html")
    page = opened_page.page
    chart = page.locator("#training-charts .chart").filter(has_text="Learning rate")
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 4, middle)
    opened_page.settle()
    at, shown = numbers(chart.locator(".readout").inner_text())
    assert at == pytest.approx(30, abs=1)  # of 0 to 120: the last test is at 100, its next at 120
    with Store(short_run) as store:
        assert shown == seven(store.series("rate")[1][int(at)])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, middle, steps=5)
    page.mouse.up()
    first, last = numbers(page.locator("#range").inner_text())
    assert (first, last) == pytest.approx((at, 2 * at), abs=2)
    limits = page.evaluate(
        "[...view.charts].filter((c) => c.plot)"
        ".map(({ plot }) => [plot.scales.x.min, plot.scales.x.max])"
    )
    assert all(pair == limits[0] for pair in limits) and limits[0][1] < 70
    page.click("#reset")
    assert numbers(page.locator("#range").inner_text())[0] == 0
    assert page.locator("#reset").is_disabled()


def test_a_parameter_is_chosen_by_its_stripe_its_name_and_by_keys(
    opened: Callable, short_run: Path
) -> None:
    opened_page = opened(short_run / "report.html")
    page = opened_page.page
    page.locator("tr[data-parameter='ip1/0'] canvas").click()
    assert page.input_value("#chosen") == "ip1/0"
    assert "400,000 values · lr_mult 1" in page.inner_text("#about")
    assert page.locator("#stripes tr.chosen").get_attribute("data-parameter") == "ip1/0"
    page.mouse.move(0, 0)
    name = page.get_by_role("button", name="ip1/0", exact=True)
    name.press("ArrowUp")  # the layer's
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    opened_page.settle()
    with Store(short_run) as store:
        _, ratios = store.updates(1, "ratio")
    shown = page.locator("#stripe-readout").inner_text()
    assert "conv1/1" in shown and numbers(shown.replace("conv1/1", "")) == [1, seven(ratios[1])]
    page.keyboard.press("Enter")
    assert page.input_value("#chosen") == "conv1/1"
    page.click("#next")
    assert page.input_value("#chosen") == "ip1/0"


def test_everything_that_acts_is_reached_with_the_tab_key(
    opened: Callable, short_run: Path
) -> None:
    page = opened(short_run / "report.html").page
    kinds = "button:not([disabled]), select:not([disabled]), .plot, summary, input"
    acting = page.locator(kinds).locator("visible=true").count()
    reached = set()
    for _ in range(3 * acting):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(document.activeElement.dataset.n ||= String(Math.random()))"))
    unreached = page.evaluate(
        f"[...document.querySelectorAll('{kinds}')]"
        ".filter((e) => !e.dataset.n && e.offsetParent).map((e) => e.outerHTML)"
    )
    assert unreached == [] and len(reached) >= acting


def test_light_and_dark(opened: Callable, short_run: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened(short_run / "report.html").page
    dark = opened(short_run / "report.html", scheme="dark").page
    (bright, dim) = (sum(numbers(p.evaluate(colour))) for p in (light, dark))
    assert dim < 128 < 600 < bright
    light.click("#theme")
    assert light.evaluate(colour) == dark.evaluate(colour)
    assert light.locator("#theme").inner_text() == "Light"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_reaches_over_the_edge(opened: Callable, short_run: Path, width: int) -> None:
    page = opened(short_run / "report.html", width=width)
    assert page.page.evaluate("document.documentElement.scrollWidth") == width
    assert page.blank_charts() == []
    over = page.page.evaluate(
        "[...document.querySelectorAll('.chart')]"
        ".filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert over == 0


def test_several_runs_are_drawn_over_each_other(opened: Callable, workdir: Path) -> None:
    runs = [Path("a", "same"), Path("b", "same")]
    for seed, run in enumerate(runs):
        write_audit(run / "audit.sqlite", 60 + 10 * seed, seed=seed)
    page: Opened = opened(write_report(runs, Path("both.html")))
    assert page.blank_charts() == []
    loss = next(chart for chart in page.page.evaluate(DRAWN) if chart["title"] == "Loss")
    found = {label: (x, values) for label, x, values in loss["lines"]}
    for run in runs:
        with Store(run) as store:
            iterations, values = store.series("smoothed_loss")
        assert found[str(run)] == (iterations.tolist(), values.tolist())
    page.page.locator("#runs input").first.uncheck()
    loss = next(chart for chart in page.page.evaluate(DRAWN) if chart["title"] == "Loss")
    assert {label for label, _, _ in loss["lines"]} & {"a/same", "b/same"} == {"b/same"}


def test_a_long_run_keeps_its_extremes(opened: Callable, workdir: Path) -> None:
    run = Path("long")
    write_audit(run / "audit.sqlite", 5000, every=5)
    page = opened(write_report([run], check=False))
    assert page.blank_charts() == []
    assert "each point stands for 3 iterations" in page.page.inner_text("#training > p")
    low, high = page.page.evaluate(
        "(() => { const s = [...view.charts][0].lines[0].s; return [s.low, s.high]; })()"
    )
    with Store(run) as store:
        _, losses = store.series("loss")
    assert (min(low), max(high)) == (losses.min(), losses.max())
    assert len(low) <= 2000


def test_a_finger_reads_and_two_zoom(opened: Callable, short_run: Path) -> None:
    phone = opened(short_run / "report.html", width=390)
    page = phone.page
    chart = phone.chart("Loss")
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *parts: float) -> None:
        y = box["y"] + box["height"] / 2
        points = [{"x": box["x"] + part * box["width"], "y": y} for part in parts]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.25)
    touch("touchMove", 0.5)
    touch("touchEnd")
    phone.settle()
    with Store(short_run) as store:
        _, losses = store.series("loss")
    at, loss = numbers(chart.locator(".readout").inner_text())[:2]
    assert at == pytest.approx(60, abs=1) and loss == seven(losses[int(at)])
    touch("touchStart", 0.4, 0.6)
    touch("touchMove", 0.2, 0.8)
    touch("touchEnd")
    first, last = numbers(page.inner_text("#range"))
    assert (first, last) == pytest.approx((40, 80), abs=3)
