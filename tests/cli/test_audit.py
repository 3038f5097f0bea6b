"""``audit check`` and ``audit compare``: what they say, and with which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from helpers.failures import failure
from helpers.nets import SHARED
from helpers.recorded_runs import change, record_iterations, write_recorded

import caffe_pysgd


def recorded(workdir: Path, name: str, iterations: int = 6, **fields: Any) -> Path:
    """Record a short training; return its run directory."""
    source = write_recorded(workdir, "{weights_every: 2}", name=name, **fields)
    record_iterations(source, iterations)
    return Path(name)


def test_check_says_whether_the_ledger_is_intact(cli: Callable, workdir: Path) -> None:
    run = recorded(workdir, "run")
    done = cli("audit", "check", run, "--json", "found.json")
    assert done.returncode == 0
    assert done.stdout.startswith("run: intact: 1 session, 6 iterations up to 5, last hash ")
    found = json.loads(Path("found.json").read_text())
    assert (found["intact"], found["iterations"]) == (True, 6)
    change(run / "audit.sqlite", "UPDATE updates SET ratio = 0.5 WHERE iteration = 3")
    done = cli("audit", "check", run / "audit.sqlite", "--json", "found.json")
    assert done.returncode == 1
    said = "broken at iteration 3 in session 1: what was recorded there was changed"
    assert done.stdout == f"run/audit.sqlite: {said}\n"
    assert json.loads(Path("found.json").read_text())["iteration"] == 3


def test_compare_says_that_two_runs_are_the_same(cli: Callable, workdir: Path) -> None:
    a, b = recorded(workdir, "a"), recorded(workdir, "b", iterations=4)
    done = cli("audit", "compare", a, b)
    assert (done.returncode, done.stdout) == (
        0,
        "compare: 4 iterations are the same, from 0 to 3\n",
    )


def test_compare_names_the_first_iteration_and_the_parameters(cli: Callable, workdir: Path) -> None:
    a = recorded(workdir, "a")
    source = write_recorded(workdir, "{weights_every: 2}", name="b")
    solver = caffe_pysgd.get_solver(source)

    def disturb() -> None:
        if solver.iter == 3:  # one gradient, by one ulp
            diff = solver.net.params["hidden"][1].diff
            diff.view("int32")[4] += 1

    solver.add_callback(lambda: None, disturb)
    solver.step(6)
    solver.close()
    done = cli("audit", "compare", a, "b", "--json", "found.json")
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last == "compare: they diverge at iteration 3 in hidden/1, after 3 that are the same"
    assert "hidden/1: gradient l2 0.618" in done.stdout
    found = json.loads(Path("found.json").read_text())
    assert found["iteration"] == 3
    assert {one["parameter"] for one in found["differences"]} - {""} == {"hidden/1"}


def test_compare_notices_other_initial_weights_and_other_rates(
    cli: Callable, workdir: Path
) -> None:
    a, b = recorded(workdir, "a"), recorded(workdir, "b", random_seed=8)
    done = cli("audit", "compare", a, b)
    assert done.returncode == 1
    assert "conv/0: initial weights " in done.stdout
    assert "they diverge before the first in conv/0, hidden/0, out/0, after 0" in done.stdout
    c = recorded(workdir, "c", base_lr=0.02)
    done = cli("audit", "compare", a, c)
    assert done.stdout.startswith("rate 0.00999")
    assert "they diverge at iteration 0 in conv/0, " in done.stdout


def test_what_cannot_be_read_or_compared_is_told_in_one_line(cli: Callable, workdir: Path) -> None:
    run = recorded(workdir, "run", iterations=1)
    other = recorded(workdir, "other", iterations=1, net=SHARED)
    Path("text").write_text("no database")
    Path("empty.sqlite").write_bytes(b"")
    for arguments, said in (
        (("check", "no"), "no: there is no such file; give an audit or a run directory"),
        (("check", "text"), "text: cannot be read as an audit: file is not a database"),
        (("check", "empty.sqlite"), "empty.sqlite: is no audit of caffe-pysgd"),
        (("compare", run, "text"), "text: cannot be read as an audit: file is not a database"),
        (("compare", run, other), "run and other: are of different nets: "),
    ):
        assert failure(cli("audit", *arguments)).startswith(said)


def test_compare_takes_what_both_have(cli: Callable, workdir: Path) -> None:
    """A run that was not asked for an audit has its losses and some hashes."""
    full = recorded(workdir, "full", max_iter=6)
    done = cli("solve", "full.prototxt", "--run-dir", "light", GLOG_minloglevel="2")
    assert done.returncode == 0, done.stderr
    done = cli("audit", "compare", full, "light")
    assert (done.returncode, done.stdout) == (
        0,
        "compare: 6 iterations are the same, from 0 to 5\n",
    )
    for column in ("loss", "smoothed_loss", "rate"):
        shutil.copytree("light", "forged", dirs_exist_ok=True)
        sql = f"UPDATE iterations SET {column} = {column} + 1 WHERE iteration = 2"
        change(Path("forged/audit.sqlite"), sql)
        done = cli("audit", "compare", full, "forged")
        assert done.returncode == 1
        assert done.stdout.startswith(f"{column} ")
        assert "they diverge at iteration 2, after 2" in done.stdout


@pytest.mark.parametrize("command", ["check", "compare"])
def test_help_is_there(cli: Callable, command: str) -> None:
    assert "Usage: caffe-pysgd audit" in cli("audit", command, "--help").stdout
