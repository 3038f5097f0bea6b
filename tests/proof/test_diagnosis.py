"""``diagnose``: what is exact, what is only rounded, what is no update at all, and bad input."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict

import caffe
import numpy as np
import pytest
from helpers.nets import NETS, NORMALIZED, RULES_OF_CAFFE, write_solver
from helpers.places import PROJECT
from helpers.solvers import weights_of

import caffe_pysgd
from caffe_pysgd import UserError
from caffe_pysgd.proof.diagnose import faults, needs
from caffe_pysgd.proof.diagnose.faults import UPDATE_FAULTS
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import NATIVE_RULES, Parameter, Updater, make_kernels

sys.path.insert(0, str(PROJECT / "examples" / "manual_sgd"))

EVERYTHING = {
    "weight_decay": 0.02, "clip_gradients": 2, "iter_size": 2,
    "lr_policy": "multistep", "gamma": 0.3, "stepvalue": [2, 3],
}  # fmt: skip


def compute_diffs(solver: Any, passes: int = 1) -> None:
    solver.net.clear_param_diffs()
    for _ in range(passes):
        solver.net.forward()
        solver.net.backward()


def parameter(solver: Any, p: Any, **wrong: float) -> Parameter:
    blob = solver.net.params[p.layer][p.index]
    multipliers = {"lr_mult": p.lr_mult, "decay_mult": p.decay_mult, **wrong}
    return Parameter(p.name, blob.data.ravel(), blob.diff.ravel(), **multipliers)


def updating(run: Run, kernels: str, **wrong: float) -> Callable[[Any, int], None]:
    """Return a step that updates with the rules of this project, on kernels of that name."""
    held: Dict[str, Updater] = {}

    def step(solver: Any, iteration: int) -> None:
        if not held:
            held["updater"] = Updater(
                [parameter(solver, p, **wrong) for p in run.parameters],
                run.h,
                NATIVE_RULES[run.solver.type](),
                make_kernels(kernels, pycaffe.library_path()),
            )
        compute_diffs(solver, run.h.iter_size)
        held["updater"].step(iteration)

    return step


@pytest.mark.parametrize("net", ["normalized", "shared"])
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_a_correct_loop_is_called_correct(workdir: Path, rule: str, net: str) -> None:
    fields = {**EVERYTHING, **RULES_OF_CAFFE[rule]}
    run = resolve(write_solver(workdir, NETS[net], type=rule, **fields), level=None)
    exact = caffe_pysgd.diagnose(run, step=updating(run, "native"))
    assert (exact.kind, exact.ok, exact.differ, exact.named) == ("exact", True, 0, [])
    assert set(exact.drift.distances) == {0}
    rounded = caffe_pysgd.diagnose(run, step=updating(run, "numpy"))
    assert (rounded.kind, rounded.ok, rounded.named) == ("rounding", True, []), str(rounded)
    assert rounded.differ > 0


@pytest.mark.parametrize("fault, wrong", [
    ("lr_mult_ignored", {"lr_mult": 1.0}), ("decay_mult_ignored", {"decay_mult": 1.0}),
])  # fmt: skip
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_a_fault_is_named_with_every_rule(
    workdir: Path, rule: str, fault: str, wrong: Dict[str, float]
) -> None:
    fields = {**RULES_OF_CAFFE[rule], "weight_decay": 0.5}
    run = resolve(write_solver(workdir, type=rule, **fields), level=None)
    verdict = caffe_pysgd.diagnose(run, step=updating(run, "numpy", **wrong))
    assert [fault in keys for keys in verdict.keys] == [True], str(verdict)


def test_caffes_own_apply_update_is_exact(workdir: Path) -> None:
    def step(solver: Any) -> None:
        compute_diffs(solver)
        solver.apply_update()

    verdict = caffe_pysgd.diagnose(write_solver(workdir), step=step)
    assert str(verdict).splitlines()[-1] == (
        "diagnose: exact: 0 of 1514 values differ after 5 iterations"
    )


def test_a_solver_in_place_of_its_file_is_refused(workdir: Path) -> None:
    solver = caffe.get_solver(str(write_solver(workdir)))
    with pytest.raises(UserError, match="give its solver file"):
        caffe_pysgd.diagnose(solver, step=lambda solver: None)


@pytest.mark.parametrize("name, momentum, kind, keys", [
    ("caffe_pysgd", 0.9, "exact", []),
    ("textbook_float64", 0.9, "rounding", []),
    ("plain", 0.9, "fault", [("momentum_missing", "history_reset")]),
    ("plain", 0, "exact", []),
    ("not_cleared", 0, "fault", [("diffs_not_cleared",)]),
    ("not_cleared_scaled", 0, "fault", [("diffs_not_cleared",)]),
    ("lr_mult_ignored", 0, "fault", [("lr_mult_ignored",)]),
])  # fmt: skip
def test_the_loops_of_the_thread_of_2016(
    mnist: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    name: str, momentum: float, kind: str, keys: Any,
) -> None:  # fmt: skip
    import loops
    import manual_sgd

    monkeypatch.chdir(mnist)
    path = tmp_path / "solver.prototxt"
    path.write_text(manual_sgd.SOLVER % momentum)
    verdict = caffe_pysgd.diagnose(path, step=getattr(loops, name), iterations=4)
    assert (verdict.kind, verdict.keys) == (kind, keys), str(verdict)


def test_rounding_says_how_fast_it_grows(workdir: Path) -> None:
    run = resolve(write_solver(workdir), level=None)
    verdict = caffe_pysgd.diagnose(run, step=updating(run, "numpy"), iterations=8)
    distances = verdict.drift.distances
    assert len(distances) == 8
    assert 0 < distances[-1] < 1e-5
    text = str(verdict)
    assert ", ".join(f"{d:.2g}" for d in distances) in text
    power = verdict.drift.exponent()
    assert power is not None
    assert (
        f"to the power of {power:.1f}: {distances[-1] * (100 / 8) ** power:.1g} after 100" in text
    )


def test_what_makes_no_difference_is_said(workdir: Path) -> None:
    """With a fixed rate, inside or outside of the history is the same on paper."""
    outside: Dict[Any, Any] = {}

    def step(solver: Any) -> None:
        compute_diffs(solver)
        for layer, blobs in solver.net.params.items():
            for index, blob in enumerate(blobs):
                lr_mult = {("conv", 1): 2, ("hidden", 0): 0.5}.get((layer, index), 1)
                v = outside[layer, index] = 0.9 * outside.get((layer, index), 0) + blob.diff
                blob.data[...] -= np.float32(0.01 * lr_mult) * v

    verdict = caffe_pysgd.diagnose(write_solver(workdir, weight_decay=0), step=step)
    assert verdict.kind == "rounding", str(verdict)
    alike = {fault.key: need for fault, need in verdict.alike}
    assert alike["rate_outside"] == alike["rate_fixed"] == "a rate that changes"
    assert alike["decay_missing"] == "a weight_decay"
    assert alike["clip_missing"] == "gradients longer than clip_gradients"
    assert alike["iter_size_missing"] == "an iter_size above 1"
    assert not alike.keys() & {"lr_mult_ignored", "momentum_missing", "wrong_sign"}
    assert "takes a rate that changes: the rate is outside of the history; " in str(verdict)


def test_a_step_that_changes_no_weight_is_told_so(workdir: Path) -> None:
    def step(solver: Any) -> None:
        compute_diffs(solver)
        for blobs in solver.net.params.values():
            for blob in blobs:
                weights = blob.data
                weights = weights - 0.01 * blob.diff  # a new array: the blob's stays as it was

    verdict = caffe_pysgd.diagnose(write_solver(workdir), step=step)
    assert verdict.keys == [("nothing_updated",)]
    assert "1514 of 1514 values differ" not in str(verdict)


def test_a_step_without_backward_is_told_so(workdir: Path) -> None:
    verdict = caffe_pysgd.diagnose(write_solver(workdir), step=lambda solver: solver.net.forward())
    assert verdict.keys == [("no_backward",), ("nothing_updated",)]


def test_dropout_that_draws_other_numbers_is_named_with_its_layer(workdir: Path) -> None:
    run = resolve(write_solver(workdir, NORMALIZED), level=None)
    correct = updating(run, "native")

    def step(solver: Any, iteration: int) -> None:
        if iteration:
            correct(solver, iteration)
            return
        # The same data, from a file of their own as it were; the dropout draws after them.
        hooked = []

        def seed(layer: int) -> None:
            if solver.net._layer_names[layer] == "drop" and not hooked:
                hooked.append(layer)
                caffe.set_random_seed(4711)

        solver.net.before_forward(seed)
        correct(solver, iteration)

    verdict = caffe_pysgd.diagnose(run, step=step, iterations=1)
    assert verdict.keys == [("random_layer",)]
    assert "the first layer that gives something else is" in str(verdict)
    assert "drop" in str(verdict)


def test_other_data_are_named(workdir: Path) -> None:
    run = resolve(write_solver(workdir), level=None)
    correct = updating(run, "native")

    def step(solver: Any, iteration: int) -> None:
        if iteration == 1:
            caffe.set_random_seed(4711)
        correct(solver, iteration)

    verdict = caffe_pysgd.diagnose(run, step=step)
    assert verdict.keys == [("other_batch",)]
    assert "at iteration 1 backward was to be of batch 1, and was of another one" in str(verdict)


@pytest.mark.parametrize("name, value, title", [
    ("base_lr", 0.03, "base_lr is 0.03, the solver's is 0.01"),
    ("momentum", 0.95, "momentum is 0.95, the solver's is 0.9"),
    ("weight_decay", 0.004, "weight_decay is 0.004, the solver's is 0.05"),
])  # fmt: skip
@pytest.mark.parametrize("second", [{}, {"lr_mult": 1.0}])
def test_another_value_of_a_setting_is_named_with_the_value(
    workdir: Path, name: str, value: float, title: str, second: Dict[str, float]
) -> None:
    run = resolve(write_solver(workdir, weight_decay=0.05), level=None)
    other = replace(run, h=replace(run.h, **{name: value}))
    verdict = caffe_pysgd.diagnose(run, step=updating(other, "numpy", **second))
    named = [("lr_mult_ignored",)] if second else []
    assert verdict.keys == [(f"other_{name}",), *named], str(verdict)
    assert verdict.named[0].faults[0].title == title


def test_a_rate_of_twice_the_value_may_be_an_update_applied_twice(workdir: Path) -> None:
    run = resolve(write_solver(workdir), level=None)
    other = replace(run, h=replace(run.h, base_lr=0.02))
    verdict = caffe_pysgd.diagnose(run, step=updating(other, "numpy"))
    assert verdict.keys == [("applied_twice", "other_base_lr")]


def test_what_is_no_known_fault_is_not_named_as_one(workdir: Path) -> None:
    run = resolve(write_solver(workdir), level=None)
    correct = updating(run, "native")

    def step(solver: Any, iteration: int) -> None:
        before = {name: values.copy() for name, values in weights_of(solver).items()}
        correct(solver, iteration)
        for layer, blobs in solver.net.params.items():
            for index, blob in enumerate(blobs):
                old = before[f"{layer}/{index}"].reshape(blob.data.shape)
                factor = 1.37 if index else 1.11
                blob.data[...] = old + factor * (blob.data - old)

    verdict = caffe_pysgd.diagnose(run, step=step)
    assert (verdict.kind, verdict.ok, verdict.keys) == ("unexplained", False, [])
    text = str(verdict)
    assert "another update, and no known fault explains it" in text.splitlines()[-1]
    assert "  conv/0: 1.11, " in text
    assert "  conv/1: 1.37, " in text


def test_what_diverges_is_compared_as_far_as_it_goes(workdir: Path) -> None:
    def step(solver: Any, iteration: int) -> None:
        compute_diffs(solver)
        for blobs in solver.net.params.values():
            for blob in blobs:
                blob.data[...] -= np.inf if iteration == 2 else np.float32(0.01) * blob.diff

    path = write_solver(workdir, momentum=0, weight_decay=0)
    verdict = caffe_pysgd.diagnose(path, step=step)
    assert verdict.keys == [("lr_mult_ignored",)]
    assert verdict.iterations == 2
    assert "The weights were not finite after iteration 2;" in str(verdict)


def fails(solver: Any) -> None:
    raise KeyError("mine")


def ends(net: Any) -> Any:
    yield


@pytest.mark.parametrize("step, message", [
    (3, "step: got 3; expected a function"),
    (fails, r"step fails: iteration 0: KeyError: 'mine' \(.*test_diagnosis.py:\d+\)"),
    (ends, "step ends: ended before iteration 1; a generator is to yield after each iteration"),
    (lambda: None, r"takes \(\); it is called as step\(solver\), step\(net\) or"),
    (lambda a, b, c: None, r"takes \(a, b, c\); it is called as"),
])  # fmt: skip
def test_a_step_that_cannot_be_run_is_refused(workdir: Path, step: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        caffe_pysgd.diagnose(write_solver(workdir), step=step)


def test_what_caffe_has_not_is_refused(workdir: Path) -> None:
    write_solver(workdir)
    Path("run.yaml").write_text("solver: solver.prototxt\nupdate: {rule: lion}\n")
    with pytest.raises(UserError, match="no stock run to compare with"):
        caffe_pysgd.diagnose("run.yaml", step=fails)
    with pytest.raises(UserError, match="iterations: got 0; expected 1 or more"):
        caffe_pysgd.diagnose("solver.prototxt", step=fails, iterations=0)


def test_the_faults_are_described_alike() -> None:
    named = [value for value in vars(faults).values() if isinstance(value, faults.Fault)]
    everything = [*UPDATE_FAULTS, *named]
    assert len({fault.key for fault in everything}) == len(everything)
    for fault in everything:
        assert fault.title[0].islower() or fault.title.startswith("Adam")
        assert len(fault.fix.splitlines()) == 1
        assert all(needs.known(need) for need in fault.needs)
