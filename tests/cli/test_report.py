"""``report``: where the page is written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from helpers.audits import write_audit
from helpers.failures import failure


def test_it_replaces_its_own_file_only(cli: Callable, workdir: Path) -> None:
    write_audit(Path("run", "audit.sqlite"), 5)
    before = {file.name for file in Path("run").iterdir()}
    for _ in range(2):
        assert cli("report", "run/audit.sqlite").stdout == "run/report.html\n"
    after = {file.name for file in Path("run").iterdir()}
    assert after - before == {"report.html"}
    assert cli("report", "run", "-o", "new/page.html").stdout == "new/page.html\n"
    assert Path("new/page.html").read_text().startswith("<!doctype html>")
    Path("folder").mkdir()
    assert "folder: is a folder" in failure(cli("report", "run", "-o", "folder"))


def test_what_is_no_audit_is_refused_by_name(cli: Callable, workdir: Path) -> None:
    assert "nowhere: there is no such file" in failure(cli("report", "nowhere"))
    Path("empty").mkdir()
    assert "empty/audit.sqlite: there is no such file" in failure(cli("report", "empty"))
    Path("text.sqlite").write_text("not a database, but long enough to look at" * 30)
    assert "text.sqlite: cannot be read as an audit" in failure(cli("report", "text.sqlite"))
    assert not list(Path().rglob("*.html"))


def test_without_jinja2_the_extra_is_named(cli: Callable, workdir: Path) -> None:
    write_audit(Path("run", "audit.sqlite"), 2)
    Path("jinja2.py").write_text("raise ImportError('not here')\n")
    said = failure(cli("report", "run", PYTHONPATH=str(workdir)))
    assert "pip install 'caffe-pysgd[report]'" in said
