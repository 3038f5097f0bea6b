"""The site that `make docs` builds: readable on a telephone, searchable, and from nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
from helpers.places import PROJECT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built; every link and anchor in it leads somewhere."""
    folder = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def tab(browser: Any, site: Path) -> Any:
    """A tab of a browser without a network, as wide as a telephone; it must not ask for anything
    but files of the site."""
    context = browser.new_context(viewport={"width": 360, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    asked: List[str] = []
    errors: List[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    home = (site.as_uri(), "data:", "blob:", "about:")
    assert [url for url in asked if not url.startswith(home)] == []
    assert errors == []
    assert len(asked) > 3


LOADS = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link(?![^>]*canonical)[^>]*\shref=["']?(?:https?:)?//[^>]*>"""
    r"""|url\(["']?(?:https?:)?//[^)]*\)|@import""",
    re.IGNORECASE,
)


def test_the_pattern_finds_what_it_is_for() -> None:
    for text in ('<script src="https://unpkg.com/x">', "url(//fonts.gstatic.com/a)",
                 '<link rel="stylesheet" href="https://fonts.googleapis.com/css">'):  # fmt: skip
        assert LOADS.search(text)
    assert not LOADS.search('<a href="https://github.com/BVLC/caffe">')


def test_no_file_of_the_site_loads_anything_from_elsewhere(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 20
    found = {str(path.relative_to(site)): LOADS.findall(path.read_text()) for path in files}
    assert {path: loads for path, loads in found.items() if loads} == {}


def test_no_table_is_too_wide_or_squeezed_on_a_telephone(tab: Any, site: Path) -> None:
    wide = []
    for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):  # a server's
        tab.goto(path.as_uri())
        if tab.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(f"{path.name}: the page")
        wide += [
            f"{path.name}: {table}"
            for table in tab.evaluate(
                """[...document.querySelectorAll(".md-typeset__scrollwrap")]
                   .filter((e) => e.scrollWidth > e.clientWidth + 1)
                   .map((e) => e.innerText.slice(0, 40))"""
            )
        ]
        wide += [
            f"{path.name}: {cell}"
            for cell in tab.evaluate(
                """[...document.querySelectorAll("article :is(td, th)")]
                   .filter((e) => e.offsetWidth && e.offsetWidth < 34 && e.innerText.length > 2)
                   .map((e) => e.innerText)"""
            )
        ]
    assert wide == []


def test_the_search_works_without_a_server(tab: Any, site: Path) -> None:
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.goto((site / "index.html").as_uri())
    tab.locator(".md-search__input").click()
    tab.keyboard.type("guard band")
    hits = tab.locator(".md-search-result__link")
    hits.first.wait_for(timeout=15_000)
    assert "2-guard-band" in hits.first.get_attribute("href")


def test_it_is_dark_where_the_reader_wants_it(tab: Any, site: Path) -> None:
    shades = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.goto((site / "index.html").as_uri())
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        shades.append(sum(map(int, re.findall(r"\d+", colour)[:3])))
    assert shades[0] > 600 > 200 > shades[1]


def test_code_is_coloured_and_can_be_copied(tab: Any, site: Path) -> None:
    tab.goto((site / "python.html").as_uri())
    block = tab.locator(".highlight").first
    assert block.locator(".kn").count() > 0  # a keyword
    assert tab.locator("button[data-clipboard-target], .md-code__button").count() > 5


def test_the_reference_says_what_the_docstrings_say(tab: Any, site: Path) -> None:
    tab.goto((site / "api.html").as_uri())
    text = tab.locator("article").inner_text()
    for words in ("Train for a number of iterations", "Return a recorded run", "Raises:"):
        assert words in text
