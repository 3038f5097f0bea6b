"""The page that compares runs, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from helpers.sweeps import write_sweep

TEXT = """
base: base.yaml
sweep_dir: out
space:
  update.base_lr: [0.001, 0.0005]
  update.rule: [sgd, nesterov, adagrad]
objective: {score: loss}
"""


@pytest.fixture
def page(cli: Callable[..., Any], workdir: Path, opened: Callable[..., Any]) -> Any:
    done = cli("sweep", write_sweep(workdir, TEXT), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    reported = cli("sweep", "report", "out")
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout.splitlines()[-1].endswith("out/index.html")
    return opened(workdir / "out/index.html")


def test_the_page_shows_every_run_sorts_them_and_leads_to_their_reports(
    page: Any, opened: Callable[..., Any]
) -> None:
    page.settle()
    assert page.blank_charts() == []
    assert page.page.locator("#table tbody tr").count() == 6
    assert page.page.locator("#runs").evaluate("(one) => one.scrollHeight <= one.clientHeight")
    assert page.page.locator("#ranking tbody tr").count() == 6
    assert page.page.locator(".counts").inner_text().split() == ["4", "finished", "2", "failed"]
    assert page.page.locator(".parallel path").count() == 4
    assert page.page.locator(".importance i").count() >= 1
    link = page.page.locator("#table a").first.get_attribute("href")
    assert link.startswith("runs/") and link.endswith("/report.html")

    head = page.page.locator("#table th", has_text="base_lr")
    head.locator("button").click()
    column = [title.strip() for title in page.page.locator("#table th").all_inner_texts()]
    at = [title.split()[0] for title in column].index("base_lr")
    cells = page.page.locator(f"#table tbody tr td:nth-child({at + 1})").all_inner_texts()
    assert cells == sorted(cells) and head.get_attribute("aria-sort") == "ascending"

    page.page.select_option("#colour", label="by rule")
    page.settle()
    assert "nesterov" in page.page.locator("#legend").inner_text()
    assert "momentum: got 0.9" in page.page.locator("td.failed").first.inner_text()
    page.page.locator("#theme").click()
    page.settle()
    assert page.blank_charts() == []

    page.page.set_viewport_size({"width": 360, "height": 740})
    page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.page.locator("#table tbody tr").first.bounding_box()["height"] < 120

    target = page.page.evaluate("document.querySelector('#table a').href")
    path = Path(target[len("file://") :].replace("%3D", "=").replace("%2C", ","))
    assert path.exists()
    assert opened(path).page.locator("h1").count() == 1
