"""The thread of 2016: the loops of examples/manual_sgd, and the one on docs/manual-sgd.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Dict

import caffe
import numpy as np
import pytest
from helpers.places import PROJECT

sys.path.insert(0, str(PROJECT / "examples" / "manual_sgd"))

import manual_sgd
from loops import LOOPS, MOMENTUM, compute_diffs, textbook

PAGE = PROJECT / "docs" / "manual-sgd.md"
ITERATIONS = 6
EXACT = ("no mistake", "caffe-pysgd")
# Exact only where Caffe's BLAS fuses multiply and add, or only where it does not.
UP_TO_THE_BLAS = ("textbook", "textbook, rounded once")


@pytest.fixture(autouse=True)
def in_project(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mnist)


def bits(net: Any) -> bytes:
    return manual_sgd.weights(net).tobytes()


@pytest.fixture(scope="module")
def drifts(mnist: Path) -> Dict[str, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(mnist)
        return manual_sgd.measure(ITERATIONS)


@pytest.mark.parametrize("label", EXACT)
def test_exact_loops_have_the_weights_of_step(drifts: Dict[str, np.ndarray], label: str) -> None:
    assert (drifts[label] == 0).all()


@pytest.mark.parametrize("label", [x for x in LOOPS if x not in (*EXACT, *UP_TO_THE_BLAS)])
def test_other_loops_drift(drifts: Dict[str, np.ndarray], label: str) -> None:
    assert (drifts[label][1:] > 0).all()
    assert np.isfinite(drifts[label]).all()


def test_the_textbook_drifts_unless_its_rounding_is_that_of_the_blas(
    drifts: Dict[str, np.ndarray],
) -> None:
    once, twice = drifts["textbook, rounded once"], drifts["textbook"]
    assert (once[-1] > 0) or (twice[-1] > 0)
    assert max(once.max(), twice.max()) < 1e-5  # a rounding, not a mistake


def test_a_loop_that_diverges_is_stopped() -> None:
    def explode(net):
        for step in textbook(net):
            net.params["ip2"][0].data[...] *= 1e4
            yield step

    native = manual_sgd.train_natively(MOMENTUM, 5)
    distances = manual_sgd.drift(explode, MOMENTUM, native)
    assert np.isinf(distances[-1])
    assert not np.isnan(distances).any()


def test_the_loop_on_the_page_has_the_weights_of_step(tmp_path: Path) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(manual_sgd.SOLVER % MOMENTUM)
    native = caffe.SGDSolver(str(solver))
    native.step(ITERATIONS)
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(import caffe\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    code = code.replace("range(300)", f"range({ITERATIONS})")
    names: Dict[str, object] = {}
    exec(code.replace('"solver.prototxt"', repr(str(solver))), names)
    assert bits(names["net"]) == bits(native.net)


def test_apply_update_after_ones_own_backward_has_the_weights_of_step() -> None:
    native, by_hand = manual_sgd.new_solver(MOMENTUM), manual_sgd.new_solver(MOMENTUM)
    native.step(ITERATIONS)
    for _ in range(ITERATIONS):
        compute_diffs(by_hand.net)
        by_hand.apply_update()
    assert bits(by_hand.net) == bits(native.net)


def test_the_plot_is_drawn(drifts: Dict[str, np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from drift_plot import plot

    diverged = np.full(ITERATIONS, np.inf)
    diverged[:3] = 0.1, 1, 10
    for name in ("drift.svg", "drift.png"):
        plot({**drifts, "diffs not cleared": diverged}, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 10_000
