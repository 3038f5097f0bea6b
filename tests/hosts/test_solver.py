"""The drop-in solver: pycaffe's interface, Caffe's loop and its bits."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, Dict, List

import caffe
import numpy as np
import pytest
from google.protobuf import text_format
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, write_solver
from helpers.runs import assert_same_bits
from helpers.solvers import (
    RULES_AND_FORMATS,
    SUFFIX,
    bits,
    everything,
    follow,
    native,
    same,
    same_snapshots,
    same_trails,
    snapshot_name,
    trail,
    weights_of,
    write_pair,
    write_staged_pair,
)

import caffe_pysgd
from caffe_pysgd import UserError, get_solver
from caffe_pysgd.hosts.solver import Action
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import read_model_message
from caffe_pysgd.update.bits import compare

CLASSES = {rule: f"{rule}Solver" for rule in RULES_OF_CAFFE}

OPTIONS: Dict[str, Dict[str, Any]] = {
    "iter_size and L1": {"iter_size": 3, "regularization_type": "L1", "weight_decay": 0.01},
    "clip and multistep": {
        "clip_gradients": 0.2, "lr_policy": "multistep", "gamma": 0.5, "stepvalue": [2, 3, 7],
    },
    "shown": {"display": 2, "average_loss": 3, "test_iter": 2, "test_interval": 3,
              "test_compute_loss": True},
    "no test at the start": {"test_iter": 2, "test_interval": 3, "test_initialization": False},
    "snapshots": {"snapshot": 2, "snapshot_format": "HDF5", "snapshot_diff": True},
    "poly": {"lr_policy": "poly", "power": 0.5, "max_iter": 8},
}  # fmt: skip

TESTED = {"test_iter": [2], "test_interval": 4}


# -- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_every_class_gives_the_native_bits_after_every_iteration(workdir: Path, rule: str) -> None:
    fields = {"weight_decay": 0.02, "clip_gradients": 2, "iter_size": 2, **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, NETS["normalized"], type=rule, **fields)
    solver_class = getattr(caffe_pysgd, CLASSES[rule])
    for solver in follow(stock, ours, solver_class, 8):
        solver.snapshot()
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_gives_the_native_bits(workdir: Path, option: str) -> None:
    stock, ours = write_pair(workdir, SMALL, **OPTIONS[option])
    follow(stock, ours, get_solver, 9)
    written = [sorted(path.name for path in one.parent.iterdir()) for one in (stock, ours)]
    assert written[0] == written[1]


def test_shared_parameters_give_the_native_bits(workdir: Path) -> None:
    stock, ours = write_pair(workdir, NETS["shared"], weight_decay=0.01)
    follow(stock, ours, get_solver, 8)


def test_stages_and_two_test_nets_give_the_native_bits(workdir: Path) -> None:
    stock, ours = write_staged_pair(workdir)
    first, second = follow(stock, ours, get_solver, 7)
    assert len(second.test_nets) == len(first.test_nets) == 2
    for theirs, here in zip(first.test_nets, second.test_nets):
        assert list(theirs.params) == list(here.params)
        for layer, blobs in theirs.params.items():
            for one, other in zip(blobs, here.params[layer]):
                assert_same_bits([compare(layer, one.data.ravel(), other.data.ravel())])


def cropped_net(mnist: Path) -> str:
    """Return a net with everything that draws: random crop and mirror, shuffling none, dropout."""
    data = "\n".join(
        f'layer {{ name: "mnist" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}'
        f" transform_param {{ scale: 0.00390625 crop_size: 20 mirror: {mirror} }}"
        f' data_param {{ source: "{mnist}/examples/mnist/mnist_{which}_lmdb" batch_size: 16'
        " backend: LMDB } }"
        for phase, mirror, which in (("TRAIN", "true", "train"), ("TEST", "false", "test"))
    )
    return (
        data
        + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "drop2" type: "Dropout" bottom: "ip" top: "ip" dropout_param { dropout_ratio: 0.2 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
    )


@pytest.mark.parametrize("make", [get_solver, caffe_pysgd.take_over], ids=["solver", "hook"])
def test_random_crops_mirroring_and_dropout_fall_as_in_caffe(
    workdir: Path, mnist: Path, make: Any
) -> None:
    fields = {"iter_size": 2, "test_iter": 2, "test_interval": 3}
    stock, ours = write_pair(workdir, cropped_net(mnist), **fields)
    seen = []
    for build, path in ((native, stock), (make, ours)):
        solver = build(str(path))
        run = [(trail(solver, 1), solver.net.blobs["data"].data.tobytes()) for _ in range(2)]
        solver.step(5)
        outputs = {
            name: [net.blobs[name].data.tobytes() for net in (solver.net, *solver.test_nets)]
            for name in ("data", "label", "loss")
        }
        images = [data for _, data in run]
        assert images[0] != images[1]
        seen.append((images, bits(weights_of(solver)), outputs))
        del solver
        gc.collect()
    assert seen[0] == seen[1]


# -- pycaffe's interface --------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_a_class_refuses_a_file_of_another_type(workdir: Path, rule: str) -> None:
    path = write_solver(workdir, type=rule, **RULES_OF_CAFFE[rule])
    other = "SGD" if rule != "SGD" else "Adam"
    said = f"type: got '{rule}'; expected '{other}' .{CLASSES[other]}."
    with pytest.raises(UserError, match=said):
        getattr(caffe_pysgd, CLASSES[other])(path)
    assert get_solver(path).param.type == rule


def test_it_has_every_name_that_pycaffes_solver_has(workdir: Path) -> None:
    stock, ours = write_pair(workdir, **TESTED)
    first, second = native(stock), get_solver(ours)
    for name in dir(first):
        if not name.startswith("_"):
            assert callable(getattr(first, name)) == callable(getattr(second, name)), name
    for name in dir(first.param):
        if not name.startswith("_"):
            assert getattr(first.param, name) == getattr(second.param, name), name
    assert list(first.net.params) == list(second.net.params)
    assert isinstance(second.net, caffe.Net)
    assert len(first.test_nets) == len(second.test_nets)
    assert first.lr == second.lr


def test_path_yaml_and_message_are_the_same_run(workdir: Path) -> None:
    stock, ours = write_pair(workdir, SMALL)
    expected = trail(native(stock), 3)
    message = text_format.Parse(ours.read_text(), pycaffe.messages().SolverParameter())
    (workdir / "run.yaml").write_text("solver: ours/solver.prototxt\n")
    for source in (ours, str(ours), "run.yaml", message):
        same_trails(expected, trail(caffe_pysgd.SGDSolver(source), 3))


def test_step_by_step_by_hand_is_the_same_as_step(workdir: Path) -> None:
    """Forward, backward and apply_update of one's own, as pycaffe's users write them."""
    stock, ours = write_pair(workdir, clip_gradients=0.5)
    trails = []
    for make, path in ((native, stock), (get_solver, ours)):
        solver, weights = make(path), []
        for _ in range(4):
            solver.net.clear_param_diffs()
            solver.net.forward()
            solver.net.backward()
            solver.apply_update()
            weights.append(weights_of(solver))
        assert solver.iter == 4
        trails.append(weights)
    same_trails(*trails)
    assert bits(trails[0][3]) == bits(trail(native(stock), 4)[3])


def test_the_diffs_after_a_step_are_the_update_as_in_caffe(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    diffs = []
    for solver in follow(stock, ours, get_solver, 3):
        blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
        diffs.append([blob.diff.tobytes() for blob in blobs])
        assert any(blob.diff.any() for blob in blobs)
    assert diffs[0] == diffs[1]


def test_share_weights_lets_another_net_see_the_training(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir))
    other = caffe.Net(str(workdir / "solver_net.prototxt"), caffe.TRAIN)
    solver.share_weights(other)
    solver.step(2)
    for layer, blobs in solver.net.params.items():
        for blob, seen in zip(blobs, other.params[layer]):
            assert blob.data.tobytes() == seen.data.tobytes()


def test_callbacks_run_in_caffes_order_and_what_they_change_counts(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    heard: Dict[str, List[Any]] = {}
    trails = []
    for name, make, path in (("stock", native, stock), ("ours", get_solver, ours)):
        solver, said = make(path), heard.setdefault(name, [])

        def ready(solver: Any = solver, said: Any = said) -> None:
            said.append(("ready", solver.iter, solver.net.params["out"][0].diff.tobytes()))
            solver.net.params["conv"][0].diff[...] *= 0.5

        solver.add_callback(lambda solver=solver, said=said: said.append(solver.iter), ready)
        solver.add_callback(lambda: None, lambda said=said: said.append("second"))
        trails.append(trail(solver, 4))
    assert heard["ours"] == heard["stock"]
    same_trails(*trails)


def test_exceptions_of_callbacks_are_the_callers(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir))
    solver.step(1)
    failing = [KeyError("mine")]

    def fail() -> None:
        if failing:
            raise failing.pop()

    solver.add_callback(lambda: None, fail)
    before = everything(solver)
    with pytest.raises(KeyError, match="mine"):
        solver.step(1)
    assert everything(solver) == before
    solver.step(1)
    assert solver.iter == 2


def test_several_solvers_are_alive_at_once_and_freed(workdir: Path) -> None:
    stock, ours = write_pair(workdir, NETS["normalized"])
    stocks, solvers = [native(stock) for _ in range(2)], [get_solver(ours) for _ in range(2)]
    for turn in range(3):
        for number, pair in enumerate(zip(stocks, solvers)):
            for solver in pair:
                caffe.set_random_seed(100 * number + turn)
                solver.step(1)
            same(weights_of(pair[0]), weights_of(pair[1]), f"of pair {number}, turn {turn}")
    net, gone = solvers[0].net, [weakref.ref(solver) for solver in solvers]
    del solvers, solver, pair
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    net.forward()


# -- what pycaffe lacks ---------------------------------------------------------------------------


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
    first = native(stock)
    first.step(4)
    first.snapshot()
    again = native(write_solver(workdir / "stock", **changed))
    again.restore(str(snapshot_name(stock, 4)))
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


def test_setting_base_lr_in_param_works_as_in_pycaffe(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    trails = []
    for make, path in ((native, stock), (get_solver, ours)):
        solver = make(path)
        first = trail(solver, 2)
        solver.param.base_lr = 0.002
        assert solver.lr == np.float32(0.002)
        trails.append(first + trail(solver, 2))
    same_trails(*trails)


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


def test_an_unknown_attribute_is_an_attribute_error(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir))
    with pytest.raises(AttributeError, match="'Solver' has no attribute 'momentun'"):
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


# -- a program for pycaffe ------------------------------------------------------------------------

NOTEBOOK = """
import numpy as np

caffe.set_mode_cpu()
solver = SGDSolver("examples/mnist/notebook_solver.prototxt")

# each output is (batch size, feature dim, spatial dim)
shapes = [(k, v.data.shape) for k, v in solver.net.blobs.items()]
filters = [(k, v[0].data.shape) for k, v in solver.net.params.items()]

solver.net.forward()
solver.test_nets[0].forward()
first_digits = solver.net.blobs["data"].data[:8, 0].copy()
first_labels = solver.test_nets[0].blobs["label"].data[:8].copy()

solver.step(1)
first_update = solver.net.params["conv1"][0].diff[:, 0].reshape(4, 5, 5, 5).copy()

niter, test_interval = 12, 5
train_loss = np.zeros(niter)
test_acc = np.zeros(int(np.ceil(niter / test_interval)))
output = np.zeros((niter, 8, 10))
for it in range(niter):
    solver.step(1)
    train_loss[it] = solver.net.blobs["loss"].data
    solver.test_nets[0].forward(start="conv1")
    output[it] = solver.test_nets[0].blobs["ip2"].data[:8]
    if it % test_interval == 0:
        correct = 0
        for test_it in range(3):
            solver.test_nets[0].forward()
            correct += sum(solver.test_nets[0].blobs["ip2"].data.argmax(1)
                           == solver.test_nets[0].blobs["label"].data)
        test_acc[it // test_interval] = correct / 3e2
last_filters = solver.net.params["conv1"][0].data[:, 0].copy()
done = solver.iter
"""


def test_a_notebooks_program_runs_with_only_its_import_changed(
    mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mnist)
    text = Path("examples/mnist/lenet_solver.prototxt").read_text()
    Path("examples/mnist/notebook_solver.prototxt").write_text(text)
    assert "random_seed" in text
    found: List[Dict[str, Any]] = []
    for line in ("from caffe import SGDSolver", "from caffe_pysgd import SGDSolver"):
        names: Dict[str, Any] = {}
        exec(f"import caffe\n{line}\n{NOTEBOOK}", names)
        names.pop("solver")
        gc.collect()
        found.append(names)
    stock, ours = found
    assert stock["SGDSolver"] is not ours["SGDSolver"]
    assert ours["done"] == stock["done"] == 13
    for name in ("shapes", "filters"):
        assert ours[name] == stock[name]
    for name in ("first_digits", "first_labels", "first_update", "train_loss", "test_acc",
                 "output", "last_filters"):  # fmt: skip
        assert stock[name].any()
        assert ours[name].tobytes() == stock[name].tobytes(), name


# -- snapshots ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "format"), RULES_AND_FORMATS)
def test_either_resumes_from_the_others_snapshot_with_the_same_bits(
    workdir: Path, rule: str, format: str
) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 6], **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, type=rule, snapshot_format=format, **fields)
    solvers, states = list(follow(stock, ours, get_solver, 4)), []
    for solver, path in zip(solvers, (stock, ours)):
        solver.snapshot()
        states.append(snapshot_name(path, 4, SUFFIX[format]))
    same_snapshots(*states)
    trails = []
    for solver in solvers:
        for state in states:
            solver.restore(str(state))
            assert solver.iter == 4
            caffe.set_random_seed(11)
            trails.append(trail(solver, 5))
            solver.snapshot()
    for other in trails[1:]:
        same_trails(trails[0], other)
    same_snapshots(*(snapshot_name(path, 9, SUFFIX[format]) for path in (stock, ours)))


@pytest.mark.parametrize(
    "fields",
    [
        {"max_iter": 6, "snapshot": 4},
        {"max_iter": 6, "snapshot": 3, "display": 3, **TESTED},
        {"max_iter": 6, "snapshot_after_train": False},
    ],
    ids=["the last one too", "at the interval only", "none"],
)
def test_solve_leaves_the_snapshots_that_caffe_leaves(
    workdir: Path, fields: Dict[str, Any]
) -> None:
    stock, ours = write_pair(workdir, **fields)
    for make, path in ((native, stock), (get_solver, ours)):
        solver = make(path)
        solver.solve()
        assert solver.iter == 6
    names = [sorted(path.name for path in one.parent.iterdir()) for one in (stock, ours)]
    assert names[0] == names[1]
    for state in ours.parent.glob("*.solverstate"):
        same_snapshots(stock.parent / state.name, state)


def test_solve_resumes_from_the_file_it_is_given(workdir: Path) -> None:
    stock, ours = write_pair(workdir, max_iter=8)
    for solver, path in zip(follow(stock, ours, get_solver, 5), (stock, ours)):
        solver.snapshot()
        solver.step(2)
        caffe.set_random_seed(3)
        solver.solve(str(snapshot_name(path, 5)))
        assert solver.iter == 8
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


@pytest.mark.parametrize("net", ["small", "normalized"])
def test_snapshot_diff_is_written_as_caffe_writes_it(workdir: Path, net: str) -> None:
    stock, ours = write_pair(workdir, NETS[net], snapshot_diff=True)
    for solver in follow(stock, ours, get_solver, 3):
        solver.snapshot()
    diffs = []
    for path in (stock, ours):
        model = read_model_message(path.parent / "solver_iter_3.caffemodel")
        blobs = [(layer.name, blob) for layer in model.layer for blob in layer.blobs]
        diffs.append([(name, np.array(blob.diff, np.float32).tobytes()) for name, blob in blobs])
    assert diffs[0] == diffs[1]
    assert any(np.frombuffer(diff, np.float32).any() for _, diff in diffs[0])


def test_snapshot_diff_in_hdf5_is_written_as_caffe_writes_it(workdir: Path) -> None:
    h5py = pytest.importorskip("h5py")
    stock, ours = write_pair(workdir, snapshot_diff=True, snapshot_format="HDF5")
    for solver in follow(stock, ours, get_solver, 3):
        solver.snapshot()
    found = []
    for path in (stock, ours):
        with h5py.File(path.parent / "solver_iter_3.caffemodel.h5", "r") as file:
            datasets: Dict[str, bytes] = {}
            file.visititems(
                lambda name, item, into=datasets: (
                    into.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None
                )
            )
            found.append(datasets)
    assert found[0] == found[1]
    assert any(name.startswith("diff/conv/") for name in found[0])


OVERWRITE = """
import os, resource, signal, sys
import caffe_pysgd
solver = caffe_pysgd.get_solver("solver.prototxt")
solver.step(2)
solver.snapshot()
print({name: hash(open(name, "rb").read()) for name in sorted(os.listdir("."))}, flush=True)
solver.iter = 1
solver.step(1)
%s
try:
    solver.snapshot()
    print("written")
except caffe_pysgd.UserError as error:
    print(error, flush=True)
print({name: hash(open(name, "rb").read()) for name in sorted(os.listdir("."))})
"""

# Adam's state is twice as large as the model.
ROOM = {"no room for the model": 90_000, "no room for the state": 180_000}


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("failure", ROOM)
def test_a_snapshot_that_cannot_be_written_leaves_the_old_one_whole(
    workdir: Path, failure: str, format: str
) -> None:
    wide = SMALL.replace("num_output: 11", "num_output: 200")
    write_solver(workdir, wide, type="Adam", snapshot_format=format)
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM[failure]}, {ROOM[failure]}))"
    program = [sys.executable, "-c", OVERWRITE % limit]
    ended = subprocess.run(program, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    before, said, after = ended.stdout.splitlines()
    kind = "caffemodel" if "model" in failure else "solverstate"
    assert said == f"{workdir}/solver_iter_2.{kind}{SUFFIX[format]}: cannot be written: " + (
        "File too large"
    )
    old, left = eval(before), eval(after)  # what the program above printed
    assert list(left) == list(old)
    whole = f"solver_iter_2.solverstate{SUFFIX[format]}"
    assert left[whole] == old[whole]
    assert (left == old) == (kind == "caffemodel")


def test_a_process_that_is_killed_while_writing_leaves_the_old_snapshot_whole(
    workdir: Path,
) -> None:
    """Killed when all is written and nothing is in its place yet: the latest moment."""
    write_solver(workdir)
    kill = "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    ended = subprocess.run([sys.executable, "-c", OVERWRITE % kill], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    before = eval(ended.stdout)  # what the program above printed
    left = {path.name for path in workdir.iterdir()}
    assert set(before) < left
    expected = get_solver("solver.prototxt")
    expected.step(2)
    fresh = get_solver("solver.prototxt")
    fresh.restore("solver_iter_2.solverstate")
    assert everything(fresh) == everything(expected)


# By the type that resumes; what Caffe itself accepts in silence (BVLC/caffe issue 5581).
WRONG_TYPES = {
    "SGD": ["AdaGrad", "RMSProp", "Adam"],
    "Nesterov": ["RMSProp", "AdaDelta"],
    "AdaGrad": ["SGD", "Adam"],
    "RMSProp": ["Nesterov"],
    "AdaDelta": ["Adam", "SGD"],
    "Adam": ["AdaDelta", "SGD"],
}


@pytest.mark.parametrize("resumed", WRONG_TYPES)
def test_the_state_of_another_solver_type_is_refused_and_changes_nothing(
    workdir: Path, resumed: str
) -> None:
    here = get_solver(write_solver(workdir, type=resumed, **RULES_OF_CAFFE[resumed]))
    here.step(2)
    before = everything(here)
    for taken in WRONG_TYPES[resumed]:
        source = write_solver(workdir, name="taken", type=taken, **RULES_OF_CAFFE[taken])
        solver = native(source)
        solver.step(3)
        solver.snapshot()
        with pytest.raises(UserError, match="another solver type") as caught:
            here.restore(str(snapshot_name(source, 3)))
        assert str(caught.value).startswith(f"{snapshot_name(source, 3)}: ")
        assert everything(here) == before


def test_a_snapshot_of_ours_names_the_rule_that_it_is_of(workdir: Path) -> None:
    """So that even those are told apart whose histories look alike."""
    for taken, resumed in (("SGD", "Nesterov"), ("AdaGrad", "RMSProp")):
        source = write_solver(workdir, name="taken", type=taken, **RULES_OF_CAFFE[taken])
        solver = get_solver(source)
        solver.step(3)
        solver.snapshot()
        here = get_solver(write_solver(workdir, type=resumed, **RULES_OF_CAFFE[resumed]))
        before = everything(here)
        with pytest.raises(UserError, match=f"state of rule '{taken.lower()}'"):
            here.restore(str(snapshot_name(source, 3)))
        assert everything(here) == before


@pytest.mark.parametrize("format", SUFFIX)
def test_what_is_no_snapshot_of_this_net_is_refused_and_changes_nothing(
    workdir: Path, format: str
) -> None:
    _, ours = write_pair(workdir, snapshot_format=format)
    wider = SMALL.replace("num_output: 11", "num_output: 12")
    others = [
        write_solver(workdir, net, name=name, snapshot_format=format)
        for name, net in (("other", NETS["normalized"]), ("wider", wider), ("gone", SMALL))
    ]
    for path in others:
        solver = native(path)
        solver.step(3)
        solver.snapshot()
    end = SUFFIX[format]
    other, wide, gone = (snapshot_name(path, 3, end) for path in others)
    (workdir / f"gone_iter_3.caffemodel{end}").unlink()
    half = workdir / f"half.solverstate{end}"
    half.write_bytes(wide.read_bytes()[: wide.stat().st_size // 2])
    solver = get_solver(ours)
    solver.step(2)
    before = everything(solver)
    for state, said in (
        (other, "is a snapshot of another net: it has no parameter hidden/0"),
        (wide, "is a snapshot of another net: hidden/0 has "),
        (gone, "its model .* is not there"),
        (half, "is not a whole Caffe solver state"),
        # BVLC/caffe issue 4181
        (workdir / f"other_iter_3.caffemodel{end}", "is not a whole Caffe solver state"),
        (workdir / "no.solverstate", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(UserError, match=said):
            solver.restore(str(state))
        assert everything(solver) == before


POSITIVE = """
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 4 dim: 40 } shape { dim: 4 dim: 1 }
    data_filler { type: "uniform" min: 0.5 max: 1 } data_filler { type: "constant" value: -9 } } }
layer { name: "out" type: "InnerProduct" bottom: "data" top: "out"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""


def test_a_history_whose_signs_are_equal_by_chance_is_not_refused(workdir: Path) -> None:
    """Positive inputs, one output, all errors of one sign: so has its true history."""
    stock, ours = write_pair(workdir, POSITIVE, base_lr=0.0001)
    first = native(stock)
    first.step(3)
    first.snapshot()
    solver = get_solver(ours)
    solver.restore(str(snapshot_name(stock, 3)))
    assert all((values > 0).all() for values in solver.history.values())
    for one in (first, solver):
        caffe.set_random_seed(1)
        one.step(2)
    same(weights_of(first), weights_of(solver), "after resuming")


# -- actions and commands -------------------------------------------------------------------------


def test_requested_actions_are_carried_out_after_the_iteration(workdir: Path) -> None:
    _, ours = write_pair(workdir, max_iter=10)
    solver = get_solver(ours)
    requests = [Action.NONE, Action.SNAPSHOT, Action.NONE, Action.STOP]
    solver.set_action_function(lambda: requests.pop(0))
    solver.solve()
    assert solver.iter == 4
    assert sorted(path.name for path in ours.parent.glob("*.solverstate")) == [
        "solver_iter_2.solverstate", "solver_iter_4.solverstate",
    ]  # fmt: skip
    solver.set_action_function(lambda: Action.NONE)
    solver.solve()
    assert solver.iter == 10


def test_a_stop_while_testing_ends_training_before_the_next_update(workdir: Path) -> None:
    _, ours = write_pair(workdir, max_iter=10, test_iter=[3], test_interval=4)
    solver = get_solver(ours)

    def requested() -> Action:
        if solver.iter == 4:
            asked.append(solver.iter)
        # The first time is after the update, the second before the test's first batch.
        stop = len(asked) == 2 and asked.append(0) is None
        return Action.STOP if stop else Action.NONE

    asked: List[int] = []
    solver.set_action_function(requested)
    solver.solve()
    assert solver.iter == 4
    assert snapshot_name(ours, 4).exists()


def test_mistakes_are_user_errors_before_any_solver_is_there(workdir: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        get_solver("no.prototxt")
    path = write_solver(workdir, type="AdaGrad", momentum=0.9)
    with pytest.raises(UserError, match="momentum"):
        get_solver(path)
    path = write_solver(workdir, snapshot=5, snapshot_prefix=workdir / "no" / "folder")
    with pytest.raises(UserError, match=r"snapshot.prefix"):
        get_solver(path)


def test_verify_finds_no_difference_between_stock_and_the_drop_in(cli: Any, workdir: Path) -> None:
    write_staged_pair(workdir, display=2)
    verified = cli("verify", "ours/solver.prototxt", "--iterations=7", "--host=solver")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.splitlines()[-1].startswith("verify: 0 of ")


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


def test_a_misspelt_hyperparameter_is_told(workdir: Path) -> None:
    solver = get_solver(write_solver(workdir, SMALL))
    with pytest.raises(AttributeError, match=r"'momentm'; did you mean 'momentum'?"):
        solver.momentm = 0.5
    solver.notes = "an attribute of one's own is all right"
