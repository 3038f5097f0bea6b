"""A real headless Chromium, for tests of the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# As root it refuses its sandbox; the rest keeps it from talking to anybody.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> Optional[str]:
    """Return the program, or None where there is none."""
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ([named] if named else NAMES))
    return next(filter(None, found), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser that runs, for all tests together."""
    if chromium() is None:
        pytest.skip(f"no Chromium ({', '.join(NAMES)} or $CHROMIUM): apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Open a page; it must not complain, then or later."""
    pages: List[Opened] = []

    def open_page(file: Path, **settings: Any) -> Opened:
        pages.append(Opened(browser, file, **settings))
        return pages[-1]

    yield open_page
    for one in pages:
        one.page.context.close()
        assert one.complaints == []


class Opened:
    """A page opened without a network, and what it complained of.

    Attributes:
        page: Playwright's page.
        complaints: errors, whatever it wrote to its console, and requests of other files.
    """

    def __init__(self, browser: Any, file: Path, width: int = 1280, scheme: Any = "light"):
        size: Any = {"width": width, "height": 900}
        touch = width < 500
        context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=touch)
        context.set_offline(True)
        self.page = context.new_page()
        self.complaints: List[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self._url = file.absolute().as_uri()
        self.page.goto(self._url)

    def _asked(self, request: Any) -> None:
        if request.url != self._url and not request.url.startswith(("data:", "blob:")):
            self.complaints.append(request.url)

    def chart(self, title: str) -> Any:
        """Return the first chart of that title."""
        return (
            self.page.locator(".chart").filter(has=self.page.get_by_text(title, exact=True)).first
        )

    def settle(self) -> None:
        """Wait until what was done shows: the charts follow with the next frames."""
        frame = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))"
        for _ in range(3):
            self.page.evaluate(frame)

    def blank_charts(self) -> List[str]:
        """Return the titles of charts on which nothing is drawn but axes."""
        blank: List[str] = self.page.evaluate(
            """() => [...document.querySelectorAll(".chart")].filter((chart) => {
              const canvas = chart.querySelector("canvas");
              if (!canvas) return false;
              const { width, height } = canvas;
              const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
              const colours = new Set();
              for (let i = 0; i < pixels.length; i += 4) {
                // What is strongly coloured is a line, a band or a cell; axes and grid are grey.
                const [r, g, b, a] = pixels.subarray(i, i + 4);
                if (a > 40 && Math.max(r, g, b) - Math.min(r, g, b) > 40) colours.add(i);
                if (colours.size > 20) return false;
              }
              return true;
            }).map((chart) => chart.querySelector("h3").textContent)"""
        )
        return blank
