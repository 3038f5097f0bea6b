"""``diagnose``: what it says and writes, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure
from helpers.nets import write_solver
from helpers.planted_loops import write_lenet

LOOP = """
import numpy as np

LR_MULT = {("conv", 1): 2, ("hidden", 0): 0.5}
history = {}


def step(solver, forgets=()):
    net = solver.net
    net.clear_param_diffs()
    net.forward()
    net.backward()
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            lr_mult = 1 if "lr_mult" in forgets else LR_MULT.get((layer, index), 1)
            rate = np.float32(0.01 * lr_mult)
            v = history.setdefault((layer, index), np.zeros_like(blob.data))
            v *= np.float32(0 if "momentum" in forgets else 0.9)
            v += rate * blob.diff
            blob.data[...] -= v


def hasty(solver):
    step(solver, ("lr_mult", "momentum"))


def broken(solver):
    return solver.no_such_thing


not_a_function = 3
"""


@pytest.fixture
def here(workdir: Path) -> Path:
    write_solver(workdir, weight_decay=0)
    Path("my loop.py").write_text(LOOP)
    return workdir


def test_a_correct_loop_exits_with_0(cli: Any, here: Path) -> None:
    process = cli("diagnose", "solver.prototxt", "--step=my loop.py:step")
    assert process.returncode == 0, process.stderr
    last = process.stdout.splitlines()[-1]
    assert last.startswith("diagnose: rounding only: ")
    assert last.endswith(" of 1514 values differ after 5 iterations")
    assert "solver.cpp" not in process.stderr  # Caffe's log stays out of the way


def test_what_is_wrong_is_said_and_exits_with_1(cli: Any, here: Path) -> None:
    before = sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts)
    process = cli(
        "diagnose",
        "solver.prototxt",
        "--step",
        "my loop.py:hasty",
        "--iterations=3",
        "--json=v.json",
    )
    assert process.returncode == 1, process.stderr
    assert process.stdout.splitlines()[-1] == (
        "diagnose: 2 faults: lr_mult is ignored; the momentum is missing, or the history is reset "
        "at every iteration"
    )
    assert "  fix: local_rate = rate * lr_mult" in process.stdout
    verdict = json.loads(Path("v.json").read_text())
    assert (verdict["kind"], verdict["ok"], verdict["iterations"]) == ("fault", False, 3)
    assert [[f["key"] for f in one["any_of"]] for one in verdict["faults"]] == [
        ["lr_mult_ignored"], ["momentum_missing", "history_reset"],
    ]  # fmt: skip
    assert verdict["explained"]["roundings"] <= 1 < verdict["reference"]["roundings"]
    assert len(verdict["distances"]) == 3
    Path("v.json").unlink()
    after = sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_lenet(cli: Any, workdir: Path, mnist: Path) -> None:
    text = 'net: "{net}" base_lr: 0.01 {more} lr_policy: "fixed" random_seed: 3 solver_mode: CPU'
    write_lenet(workdir, mnist, text=text)
    Path("loop.py").write_text(LOOP.replace("LR_MULT.get((layer, index), 1)", "1"))
    process = cli("diagnose", "solver.prototxt", "--step=loop.py:step", "--iterations=3")
    assert process.returncode == 1, process.stderr
    assert process.stdout.splitlines()[-1] == "diagnose: 1 fault: lr_mult is ignored"


@pytest.mark.parametrize("step, message", [
    ("my loop.py", "--step: got 'my loop.py'; expected file.py:function"),
    ("no.py:step", "--step: there is no file no.py"),
    ("my loop.py:stop", "--step: my loop.py has no function 'stop'; did you mean 'step'?"),
    ("my loop.py:not_a_function", "step: got 3; expected a function"),
    ("solver.prototxt:step",
     "--step: solver.prototxt: is not a Python file; its name must end in .py"),
    ("wrong.py:step", "--step: importing wrong.py failed: SyntaxError: "),
])  # fmt: skip
def test_a_step_that_is_not_there_is_one_line(
    cli: Any, here: Path, step: str, message: str
) -> None:
    Path("wrong.py").write_text("def step(:\n")
    process = cli("diagnose", "solver.prototxt", f"--step={step}")
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith(f"caffe-pysgd: {message}")
    assert "Traceback" not in process.stderr


def test_a_step_that_raises_is_one_line_with_its_place(cli: Any, here: Path) -> None:
    process = cli("diagnose", "solver.prototxt", "--step=my loop.py:broken")
    assert process.returncode == 2
    line = 1 + LOOP.splitlines().index("    return solver.no_such_thing")
    said = process.stderr.splitlines()[-1]
    assert said.startswith("caffe-pysgd: step broken: iteration 0: AttributeError: ")
    assert said.endswith(f"my loop.py:{line})")
    assert "Traceback" not in process.stderr


def test_without_a_step_it_says_so(cli: Any, here: Path) -> None:
    assert "--step" in failure(cli("diagnose", "solver.prototxt"))
