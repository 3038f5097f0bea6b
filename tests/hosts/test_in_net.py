"""The in-net host in pycaffe solvers: every option and kind of net, 0 ulp after every iteration."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any, Dict

import caffe
import numpy as np
import pytest
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, STAGED, write_solver
from helpers.runs import Both, assert_same_bits, break_hook, same_weights, step_both, weights_of
from helpers.solvers import STATES, same_test_nets

OPTIONS: Dict[str, Dict[str, Any]] = {
    "defaults": {},
    "no momentum": {"momentum": 0},
    "L1": {"regularization_type": "L1", "weight_decay": 0.01},
    "clip": {"clip_gradients": 0.5},
    "iter_size": {"iter_size": 3},
    "clip, L1, iter_size, multistep": {
        "clip_gradients": 0.2,
        "regularization_type": "L1",
        "iter_size": 2,
        "lr_policy": "multistep",
        "gamma": 0.5,
        "stepvalue": [3, 4, 9],
    },
    "poly": {"lr_policy": "poly", "power": 0.5, "max_iter": 15},
    "debug_info": {"debug_info": True, "display": 4},
    "deprecated type": {"solver_type": "SGD"},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_gives_the_bits_of_the_native_solver(workdir: Path, option: str) -> None:
    step_both(Both.write(write_solver(workdir, SMALL, **OPTIONS[option])), 12)


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_every_rule_of_caffe_gives_its_bits_in_weights_and_history(
    workdir: Path, rule: str
) -> None:
    fields = {"weight_decay": 0.02, "clip_gradients": 2, "iter_size": 2, **RULES_OF_CAFFE[rule]}
    both = Both.write(write_solver(workdir, NETS["normalized"], type=rule, **fields))
    solvers = step_both(both, 12)
    for solver in solvers.values():
        solver.snapshot()
    assert_same_bits(both.final(12))


@pytest.mark.parametrize("net", NETS)
def test_every_kind_of_net_gives_the_bits_of_the_native_solver(workdir: Path, net: str) -> None:
    both = Both.write(write_solver(workdir, NETS[net], weight_decay=0.01, clip_gradients=3))
    solvers = step_both(both, 12)
    for solver in solvers.values():
        solver.snapshot()
    assert_same_bits(both.final(12))


def test_stages_and_two_test_nets_give_the_bits_of_the_native_solver(workdir: Path) -> None:
    source = write_solver(workdir, STAGED, test_iter=[2, 3], test_interval=3)
    source.write_text(source.read_text() + STATES)
    both = Both.write(source)
    assert [p.layer for p in both.run.parameters] == ["wide", "wide", "out", "out"]
    solvers = step_both(both, 7)
    same_test_nets(solvers["stock"], solvers["ours"])


def test_several_solvers_in_one_process_keep_their_own_history(workdir: Path) -> None:
    first = Both.write(write_solver(workdir, SMALL, name="first"))
    (workdir / "b").mkdir()
    second = Both.write(write_solver(workdir / "b", NETS["shared"], momentum=0.5))
    stocks = [caffe.get_solver(str(both.stock)) for both in (first, second)]
    solvers = [caffe.get_solver(str(both.ours)) for both in (first, second)]
    for _ in range(6):  # the four take turns; DummyData draws from one generator for all
        for pair in zip(stocks, solvers):
            for solver in pair:
                caffe.set_random_seed(5)
                solver.step(1)
    for both, stock, ours in zip((first, second), stocks, solvers):
        same_weights(both, weights_of(both, stock), weights_of(both, ours), "at the end")


def test_a_solver_that_is_gone_leaves_the_next_one_alone(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL))
    for _ in range(3):
        step_both(both, 2)
        gc.collect()


def test_an_exception_reaches_the_caller_in_a_python_process(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL))
    break_hook(both)
    solver = caffe.get_solver(str(both.ours))
    with pytest.raises(ValueError, match="kernels: got 'none'; expected one of auto"):
        solver.step(1)


FAILING_LAYER = """
import caffe


class Failing(caffe.Layer):
    passes_left = -1

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        Failing.passes_left -= 1
        if Failing.passes_left == 0:
            raise KeyError("not this time")

    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_an_iteration_that_an_exception_cut_short_is_not_counted(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    """What its passes left behind is cleared; the next iteration has all of its own."""
    (workdir / "failing.py").write_text(FAILING_LAYER)
    monkeypatch.syspath_prepend(workdir)
    monkeypatch.setenv("PYTHONPATH", str(workdir))
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    layer = """layer { name: "fails" type: "Python" bottom: "conv"
      python_param { module: "failing" layer: "Failing" } propagate_down: false }
    """
    both = Both.write(write_solver(workdir, SMALL + layer, iter_size=3))
    weights = {}
    for name, path in (("stock", both.stock), ("ours", both.ours)):
        solver = caffe.get_solver(str(path))
        solver.step(2)
        sys.modules["failing"].Failing.passes_left = passes
        with pytest.raises(KeyError, match="not this time"):
            solver.step(1)
        assert solver.iter == 2
        solver.step(3)
        weights[name] = weights_of(both, solver)
    same_weights(both, weights["stock"], weights["ours"], f"after failing in pass {passes}")


def test_numpy_kernels_are_close_but_not_exact(workdir: Path) -> None:
    """What the 2016 thread ran into: each rounding differs, and training amplifies it."""
    write_solver(workdir, SMALL)
    source = workdir / "run.yaml"
    source.write_text("solver: solver.prototxt\nupdate: {kernels: numpy}\n")
    both = Both.write(source)
    weights = []
    for path in (both.stock, both.ours):
        solver = caffe.get_solver(str(path))
        solver.step(10)
        weights.append(np.concatenate(weights_of(both, solver)))
    assert 0 < np.abs(weights[0] - weights[1]).max() < 1e-5


def test_restoring_in_the_middle_goes_back_to_that_state(workdir: Path) -> None:
    source = write_solver(workdir, SMALL, lr_policy="inv", gamma=0.1, power=0.75)
    both = Both.write(source)
    solvers = step_both(both, 4)
    for name, solver in solvers.items():
        caffe.set_random_seed(8)
        solver.snapshot()
        solver.step(3)
        solver.restore(f"{name}/snap_iter_4.solverstate")
        caffe.set_random_seed(9)
        solver.step(5)
        solver.snapshot()
    assert_same_bits(both.final(9))


def test_figures_of_the_update_are_shown_at_displayed_iterations(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL, display=2))
    solver = caffe.get_solver(str(both.ours))
    for iteration in range(4):
        before = np.concatenate(weights_of(both, solver))
        solver.step(1)
        if iteration % 2 == 0:
            moved = np.linalg.norm(np.concatenate(weights_of(both, solver)) - before)
            weighed = np.linalg.norm(np.concatenate(weights_of(both, solver)))
            assert solver.net.blobs["pysgd_update_l2"].data[0] == pytest.approx(moved, rel=1e-3)
            assert solver.net.blobs["pysgd_update_ratio"].data[0] == pytest.approx(
                moved / weighed, rel=1e-3
            )
        assert solver.net.blobs["pysgd"].data[0] == 0


def test_running_statistics_are_no_weights_in_the_ratio(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, NETS["normalized"], display=1))
    solver = caffe.get_solver(str(both.ours))

    def learned() -> np.ndarray:
        blobs = [solver.net.params[layer] for layer in ("conv", "scale", "frozen", "out")]
        return np.concatenate([blob.data.ravel() for pair in blobs for blob in pair])

    for _ in range(3):
        before = learned()
        solver.step(1)
        ratio = np.linalg.norm(learned() - before) / np.linalg.norm(learned())
        assert solver.net.blobs["pysgd_update_ratio"].data[0] == pytest.approx(ratio, rel=1e-3)
