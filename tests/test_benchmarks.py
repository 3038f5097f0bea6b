"""The benchmarks run, at sizes that say nothing, and print their tables; no time is looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import PROJECT

BENCHMARKS = PROJECT / "benchmarks"


def output_of(script: str, *arguments: object) -> str:
    """Run a benchmark in the working directory; return what it prints."""
    process = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *map(str, arguments)],
        env={**os.environ, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def row(table: str, first_cell: str) -> list[str]:
    """Return the other cells of a table's row."""
    cells = re.search(rf"│ *{re.escape(first_cell)} *│(.*)│", table)
    assert cells, f"no row {first_cell} in\n{table}"
    return [cell.strip() for cell in cells[1].split("│")]


def test_updates_of_every_kind_of_rule_are_compared_and_drawn(workdir: Path) -> None:
    rules = ("SGD", "AdaGrad", "AdamW")
    small = ("--values", 200, 2000, "--pairs", 1, "--pause", 0, "--rules", *rules)
    printed = output_of("update.py", *small, "--json", "u.json")
    assert "PyTorch is left out; --torch makes .venv-torch for it" in printed
    assert re.findall(r"(\S+ values): ms of one update", printed) == ["220 values", "2,112 values"]
    for rule in rules:
        title = "AdamW (Caffe: Adam)" if rule == "AdamW" else rule
        times = row(printed, title)
        assert all(re.fullmatch(r"[\d.]+ \([\d.]+x\)", cell) for cell in times[1:4])
    result = json.loads(Path("u.json").read_text())
    assert [sorted(size["rules"]) for size in result["sizes"]] == [sorted(rules)] * 2
    assert sorted(result["memory"]["rules"]) == sorted(rules)
    assert output_of("plots.py", "u.json", "drawn").count(" kB") == 2
    for picture in Path("drawn").iterdir():
        assert picture.stat().st_size < 200_000
        assert "<svg" in picture.read_text()


def test_the_native_update_with_nothing_to_do_is_measured(workdir: Path) -> None:
    printed = output_of("noop.py", "--width", 10, "--pairs", 1)
    assert len(row(printed, "431,080")) == len(row(printed, "220")) == 4


def test_what_a_small_net_pays_is_measured(workdir: Path) -> None:
    printed = output_of("small.py", "--pairs", 1, "--rules", "SGD")
    assert all(float(cell) > 0 for cell in row(printed, "SGD"))


@pytest.mark.slow  # two dozen starts
def test_starts_are_measured(mnist: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mnist)
    printed = output_of("start.py", "--pairs", 1)
    assert len(row(printed, "import caffe_pysgd")) == 4
    for start in ("caffe-pysgd train", "caffe-pysgd solve", "get_solver(X).step(1)"):
        assert len(row(printed, f"{start}, first")) == len(row(printed, f"{start}, second")) == 4


def test_whole_runs_are_measured_in_every_host(workdir: Path) -> None:
    printed = output_of("runs.py", "--nets", "alexnet", "--shrink", 64, "--pairs", 1)
    for host in ("stock", "in-net", "hook", "solve"):
        assert all(float(cell) > 0 for cell in row(printed, host))


def test_what_the_audit_costs_is_measured(
    mnist: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mnist)
    printed = output_of("audit.py", "--iterations", 1, "--updates", 1, "--values", 3000)
    assert printed.count("; the audit costs ") == 3


def test_the_rules_beyond_caffe_are_compared_by_the_byte(workdir: Path) -> None:
    printed = output_of("beyond.py", "--values", "1e4", "--rounds", "1")
    rows = re.findall(r"^(\S.*?) +[\d.]+ ms +[\d.]+ of SGD's time per byte$", printed, re.MULTILINE)
    assert rows[0] == "SGD" and {"LARS", "LAMB", "Signum (own)"} <= set(rows)


def test_the_views_of_a_large_audit_are_measured(workdir: Path) -> None:
    printed = output_of("views.py", "--iterations", 4, "--json", "v.json")
    assert len(re.findall(r": [\d.]+ s, [\d.]+ s of processors, [\d.]+ MB", printed)) == 7
    assert "report --no-check" in json.loads(Path("v.json").read_text())


def test_the_page_shows_the_aims_and_which_of_them_the_figures_meet() -> None:
    table, _, told = output_of("aims.py", BENCHMARKS / "figures", "--markdown").partition("\n\n")
    page = (PROJECT / "docs" / "performance.md").read_text()
    assert table in page
    assert told.splitlines()[0] in page
    assert "not measured" not in told
