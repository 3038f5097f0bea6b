"""What the drop-in solver lets its user see and set, and pycaffe's solvers do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import caffe
import numpy as np
import pytest
from helpers.nets import RULES_OF_CAFFE, SMALL, write_solver
from helpers.solvers import (
    everything,
    native,
    same_trails,
    snapshot_after,
    trail,
    weights_of,
    write_pair,
)

from caffe_pysgd import UserError, get_solver


def test_the_rate_can_be_looked_at_without_side_effects(workdir: Path) -> None:
    policy = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 2, 3]}
    solver = get_solver(write_solver(workdir, **policy))
    rates = []
    for _ in range(5):
        rates.append([solver.lr for _ in range(4)])
        solver.step(1)
    assert all(len(set(rate)) == 1 for rate in rates)
    assert [rate[0] for rate in rates] == pytest.approx([0.01, 0.005, 0.0025, 0.00125, 0.00125])


def test_the_iteration_can_be_set(workdir: Path) -> None:
    """As if a native solver with an empty history had been restored there (BVLC/caffe 3651)."""
    policy = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [5, 6, 9]}
    _, ours = write_pair(workdir, **policy)
    solver = get_solver(ours)
    solver.iter = 8
    assert (solver.iter, solver.updater.current_step) == (8, 2)
    assert solver.lr == np.float32(0.0025)
    solver.step(2)
    assert (solver.iter, solver.updater.current_step) == (10, 3)
    solver.iter = 0
    assert solver.lr == np.float32(0.01)


SETTINGS: Dict[str, Dict[str, Any]] = {
    "momentum": {"momentum": 0.5},
    "base_lr": {"base_lr": 0.003},
    "weight_decay": {"weight_decay": 0.1},
    "policy": {"lr_policy": "exp", "gamma": 0.7},
    "several": {"momentum": 0.2, "clip_gradients": 0.1, "iter_size": 2},
    "steps": {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [5, 7]},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_set_in_the_middle_is_what_a_restarted_native_solver_would_have(
    workdir: Path, setting: str
) -> None:
    changed = SETTINGS[setting]
    stock, ours = write_pair(workdir)
    state = snapshot_after(stock, 4)
    again = native(write_solver(workdir / "stock", **changed))
    again.restore(str(state))
    caffe.set_random_seed(2)
    expected = trail(again, 5)
    solver = get_solver(ours)
    solver.step(4)
    for name in sorted(changed, reverse=True):  # stepvalue and gamma before the policy or after
        setattr(solver, name, changed[name])
        assert getattr(solver, name) == pytest.approx(
            tuple(changed[name]) if name == "stepvalue" else changed[name]
        )
    caffe.set_random_seed(2)
    same_trails(expected, trail(solver, 5))


def test_a_group_keeps_its_own_values_whatever_is_set_for_the_others(workdir: Path) -> None:
    write_solver(workdir, SMALL, lr_policy="multistep", gamma=0.5, stepvalue=[2])
    source = workdir / "run.yaml"
    source.write_text(
        "solver: solver.prototxt\n"
        "update: {params: [{match: 'conv/*', stepvalue: [100], momentum: 0.5}]}\n"
    )
    solver = get_solver(source)
    made = [p.h for p in solver.updater.parameters]
    solver.step(3)
    assert [p.h for p in solver.updater.parameters] == made
    solver.momentum, solver.param.base_lr = 0.25, 0.5
    solver.step(1)
    own, common = solver.updater.parameters[0].h, solver.updater.parameters[-1].h
    assert (own.momentum, own.stepvalue, own.base_lr) == (0.5, (100,), 0.5)
    assert (common.momentum, common.stepvalue, common.base_lr) == (0.25, (2,), 0.5)


def test_a_setting_that_is_not_allowed_changes_nothing(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir))
    solver.step(2)
    before, param = everything(solver), solver.param.SerializeToString()
    for name, value, error in (
        ("lr_policy", "no", UserError),
        ("lr_policy", 5, TypeError),
        ("iter_size", 0, ValueError),
        ("momentum", "much", TypeError),
        ("stepsize", 2.5, TypeError),
        ("regularization_type", "L3", ValueError),
    ):
        had = getattr(solver, name)
        with pytest.raises(error):
            setattr(solver, name, value)
        assert getattr(solver, name) == had
        assert solver.param.SerializeToString() == param
        assert everything(solver) == before


def test_a_misspelt_hyperparameter_is_warned_of_and_set(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir, SMALL))
    with pytest.warns(UserWarning) as warned:
        solver.momentm = 0.5
        solver.momentm = 0.6
    assert [str(one.message) for one in warned] == [
        "SGDSolver has no setting 'momentm'; did you mean 'momentum'? It is an attribute of your "
        "own now"
    ]
    assert warned[0].filename == __file__
    assert (solver.momentm, solver.momentum) == (0.6, np.float32(0.9))


def test_a_programs_own_attributes_can_be_set(
    workdir: Path, recwarn: pytest.WarningsRecorder
) -> None:
    solver = get_solver(write_solver(workdir, SMALL))
    for name in ("iters", "lr_", "lrs", "notes", "train_loss", "params", "net_file", "_powers"):
        setattr(solver, name, [name])
        assert getattr(solver, name) == [name]
    assert not recwarn.list


def test_an_unknown_attribute_is_an_attribute_error(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir))
    with pytest.raises(AttributeError, match="'SGDSolver' has no attribute 'momentun'"):
        solver.momentun  # noqa: B018


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_compute_update_is_what_apply_update_subtracts_and_changes_nothing(
    workdir: Path, rule: str
) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [2, 3], **RULES_OF_CAFFE[rule]}
    solver = get_solver(write_solver(workdir, type=rule, clip_gradients=0.5, **fields))
    solver.step(2)
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    params = [blob for blobs in solver.net.params.values() for blob in blobs]
    gradients = [blob.diff.copy() for blob in params]
    before = everything(solver)
    update = solver.compute_update()
    again = solver.compute_update()
    assert everything(solver) == before
    assert [blob.diff.tobytes() for blob in params] == [one.tobytes() for one in gradients]
    weights = weights_of(solver)
    solver.apply_update()
    assert list(update) == ["conv/0", "conv/1", "hidden/0", "hidden/1", "out/0"]
    for name, blob in zip(update, params):
        assert update[name].shape == blob.data.shape
        assert update[name].tobytes() == again[name].tobytes() == blob.diff.tobytes()
        # -1 is exact, so one rounding is all that the subtraction does
        assert (weights[name] - update[name].ravel()).tobytes() == blob.data.tobytes()


def test_history_is_a_dictionary_of_arrays_that_can_be_written(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    first = native(stock)
    first.step(3)
    first.snapshot()
    solver = get_solver(ours)
    solver.step(3)
    copies = {name: values.copy() for name, values in solver.history.items()}
    assert {name: values.shape for name, values in copies.items()} == {
        f"{layer}/{index}": tuple(blob.data.shape)
        for layer, blobs in solver.net.params.items()
        for index, blob in enumerate(blobs)
    }
    before = everything(solver)
    for values in solver.history.values():
        values[...] = 0
    assert everything(solver)[1] != before[1]
    caffe.set_random_seed(4)
    solver.step(1)
    for name, values in copies.items():  # without a history the update is the gradient's alone
        assert values.any(), name
    fresh = get_solver(ours)
    fresh.step(3)
    for name, values in fresh.history.items():
        assert values.tobytes() == copies[name].tobytes()
        values *= 1
    caffe.set_random_seed(4)
    first_again = trail(first, 1)
    caffe.set_random_seed(4)
    same_trails(first_again, trail(fresh, 1))


def test_a_rule_with_two_slots_names_them_in_its_history(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir, type="Adam"))
    solver.step(1)
    assert list(solver.history)[:2] == ["conv/0.m", "conv/1.m"]
    assert list(solver.history)[5:7] == ["conv/0.v", "conv/1.v"]
    assert all((solver.history[f"conv/{index}.v"] >= 0).all() for index in (0, 1))
