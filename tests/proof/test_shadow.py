"""The shadow: 0 ulp for a native solver of any type, and what really departs is named."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, Tuple

import caffe
import numpy as np
import pytest
from helpers.nets import NETS, RULES_OF_CAFFE, write_solver
from helpers.solvers import snapshot_name, weights_of

import caffe_pysgd
from caffe_pysgd import UserError
from caffe_pysgd.proof.shadow import Shadow

EVERYTHING = {
    "weight_decay": 0.02, "clip_gradients": 2, "iter_size": 2,
    "lr_policy": "multistep", "gamma": 0.3, "stepvalue": [2, 5],
}  # fmt: skip


def watched(path: Path) -> Tuple[Any, Shadow]:
    solver = caffe.get_solver(str(path))
    return solver, caffe_pysgd.shadow(solver, path)


@pytest.mark.parametrize("net", ["normalized", "shared"])
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_no_native_solver_diverges(workdir: Path, rule: str, net: str) -> None:
    fields = {**EVERYTHING, **RULES_OF_CAFFE[rule]}
    path = write_solver(workdir, NETS[net], type=rule, **fields)
    solver, monitor = watched(path)
    before = weights_of(solver)
    solver.step(6)
    for _ in range(2):
        solver.step(1)
        monitor.check()
    solver.snapshot()
    history = monitor.check_history(snapshot_name(path, 8))
    report = monitor.check()
    statistics = sum(p.count for p in monitor.updater.parameters if "norm/" in p.name)
    weights = sum(p.count for p in monitor.updater.parameters) - statistics
    assert any((before[name] != values).any() for name, values in weights_of(solver).items())
    assert (report.differ, report.max_ulp, report.divergence) == (0, 0, None)
    assert report.iterations == 8
    assert report.values == 8 * weights + sum(one.count for one in history)
    assert any(state.any() for slots in monitor.updater.states for state in slots.values())


def test_a_solver_that_is_watched_trains_as_one_that_is_not(workdir: Path) -> None:
    path = write_solver(workdir)
    alone = caffe.get_solver(str(path))
    alone.step(6)
    solver, monitor = watched(path)
    for _ in range(6):
        solver.step(1)
        monitor.check()
    assert {k: v.tobytes() for k, v in weights_of(alone).items()} == {
        k: v.tobytes() for k, v in weights_of(solver).items()
    }


@pytest.mark.parametrize("looks_at_once", [True, False])
def test_a_weight_that_is_changed_between_iterations_is_named(
    workdir: Path, looks_at_once: bool
) -> None:
    solver, monitor = watched(write_solver(workdir))
    solver.step(3)
    if looks_at_once:
        assert monitor.check().divergence is None
    changed = solver.net.params["hidden"][0].data
    expected = changed.flat[17]
    changed.flat[17] = np.nextafter(expected, np.float32(9))
    solver.step(2)
    found = monitor.check().divergence
    assert found is not None
    assert (found.iteration, found.parameter, found.index) == (2, "hidden/0", 17)
    assert found.expected == expected
    assert found.found == np.nextafter(expected, np.float32(9))
    assert found.stage == ("between iterations" if looks_at_once else "update or data")
    assert (monitor.report.differ, monitor.report.max_ulp) == (1, 1)
    assert monitor.report.iterations == 5  # what followed was right, from the changed weight


def test_a_weight_that_is_changed_right_after_the_update_is_told_from_the_update(
    workdir: Path,
) -> None:
    solver, monitor = watched(write_solver(workdir))
    solver.step(1)
    solver.net.params["out"][0].data.flat[3] += 1
    found = monitor.check().divergence
    assert found is not None
    assert (found.iteration, found.parameter, found.index) == (0, "out/0", 3)
    assert found.stage == "data"


def test_a_rate_that_is_changed_is_named(workdir: Path) -> None:
    solver, monitor = watched(write_solver(workdir))
    solver.step(3)
    solver.param.base_lr = 0.02
    solver.step(2)
    found = monitor.check().divergence
    assert found is not None
    assert (found.iteration, found.parameter, found.stage) == (3, "conv/0", "rate")


def test_a_wrong_momentum_is_named_at_the_first_iteration_that_uses_it(workdir: Path) -> None:
    told = write_solver(workdir, name="told", momentum=0.8)
    solver = caffe.get_solver(str(write_solver(workdir)))
    monitor = caffe_pysgd.shadow(solver, source=told)
    for _ in range(4):
        solver.step(1)
        monitor.check()
    found = monitor.report.divergence
    assert found is not None
    assert (found.iteration, found.parameter, found.stage) == (1, "conv/0", "update")
    blob = solver.net.params["conv"][0]
    assert f"({found.expected.hex()})" in str(monitor.report)
    assert 0 < monitor.report.differ < monitor.report.values
    assert found.index < blob.count


def test_it_goes_on_from_a_snapshot(workdir: Path) -> None:
    path = write_solver(workdir, type="Adam", momentum2=0.99, base_lr=0.001)
    first = caffe.get_solver(str(path))
    first.step(4)
    first.snapshot()
    state = snapshot_name(path, 4)
    solver = caffe.get_solver(str(path))
    solver.restore(str(state))
    with pytest.raises(UserError, match=r"at iteration 4 and its history is not known"):
        caffe_pysgd.shadow(solver, path)
    monitor = caffe_pysgd.shadow(solver, path, snapshot=state)
    solver.step(4)
    report = monitor.check()
    assert (report.differ, report.divergence, report.iterations) == (0, None, 4)
    with pytest.raises(UserError, match="is of iteration 4, the solver is at 8"):
        caffe_pysgd.shadow(solver, path, snapshot=state)


def test_a_restore_that_it_was_not_told_of_ends_it(workdir: Path) -> None:
    path = write_solver(workdir)
    solver, monitor = watched(path)
    solver.step(2)
    solver.snapshot()
    solver.step(3)
    solver.restore(str(snapshot_name(path, 2)))
    solver.step(2)
    report = monitor.check()
    assert report.divergence is not None
    assert report.divergence.stage == "iteration"
    assert "iteration 5 was to come, found 2" in str(report)
    assert (report.differ, report.iterations) == (0, 4)


def test_what_is_no_native_solver_is_refused(workdir: Path) -> None:
    path = write_solver(workdir)
    with pytest.raises(UserError, match="update is Python's already"):
        caffe_pysgd.shadow(caffe_pysgd.take_over(path), path)
    with pytest.raises(UserError, match="expected a solver of pycaffe's"):
        caffe_pysgd.shadow(str(path), path)
    other = write_solver(workdir, NETS["shared"], name="other")
    with pytest.raises(UserError, match="describes another net: the solver's has no left/0"):
        caffe_pysgd.shadow(caffe.get_solver(str(path)), source=other)


def test_neither_keeps_the_other_alive(workdir: Path) -> None:
    solver, monitor = watched(write_solver(workdir))
    there = weakref.ref(monitor)
    del monitor
    gc.collect()
    assert there() is None
    solver.step(1)
    path = write_solver(workdir)
    monitor = caffe_pysgd.shadow(caffe.get_solver(str(path)), path)
    with pytest.raises(UserError, match="is gone"):
        monitor.check()
