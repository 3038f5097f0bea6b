"""The hook and the drop-in solver: the native bits, and pycaffe's interface to them."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Dict

import caffe
import numpy as np
import pytest
from google.protobuf import text_format
from helpers.hosts import PYTHON_HOSTS, Make
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, write_solver
from helpers.solvers import (
    bits,
    follow,
    names_beside,
    native,
    same_snapshots,
    same_test_nets,
    same_trails,
    snapshot_name,
    trail,
    weights_of,
    write_pair,
    write_staged_pair,
)

import caffe_pysgd
from caffe_pysgd import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.solver_file import read_solver

OPTIONS: Dict[str, Dict[str, Any]] = {
    "iter_size and L1": {"iter_size": 3, "regularization_type": "L1", "weight_decay": 0.01},
    "clip and L1": {"regularization_type": "L1", "weight_decay": 0.01, "clip_gradients": 0.2},
    "clip and multistep": {
        "clip_gradients": 0.2, "lr_policy": "multistep", "gamma": 0.5, "stepvalue": [2, 3, 7],
    },
    "multistep": {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [2, 3, 7]},
    "inv": {"lr_policy": "inv", "gamma": 0.1, "power": 0.75, "momentum": 0},
    "poly": {"lr_policy": "poly", "power": 0.5, "max_iter": 8},
    "shown": {"display": 2, "average_loss": 3, "test_iter": 2, "test_interval": 3,
              "test_compute_loss": True},
    "no test at the start": {"test_iter": 2, "test_interval": 3, "test_initialization": False},
    "debug_info": {"debug_info": True, "display": 4},
    "snapshots with diffs": {"snapshot": 2, "snapshot_format": "HDF5", "snapshot_diff": True},
    "snapshots": {"snapshot": 3, "snapshot_format": "HDF5"},
}  # fmt: skip


# -- the same bits --------------------------------------------------------------------------------


def by_class(path: str) -> Any:
    """Make the drop-in solver by the class of its type, as pycaffe's users do."""
    return getattr(caffe_pysgd, f"{read_solver(Path(path)).type}Solver")(path)


@pytest.mark.parametrize("net", ["normalized", "shared"])
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
@pytest.mark.parametrize("make", [*PYTHON_HOSTS.values(), by_class], ids=[*PYTHON_HOSTS, "class"])
def test_every_rule_gives_the_native_bits_after_every_iteration(
    workdir: Path, make: Make, rule: str, net: str
) -> None:
    fields = {"weight_decay": 0.02, "clip_gradients": 2, "iter_size": 2, **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, NETS[net], type=rule, **fields)
    for solver in follow(stock, ours, make, 8):
        solver.snapshot()
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_gives_the_native_bits(workdir: Path, make: Make, option: str) -> None:
    stock, ours = write_pair(workdir, SMALL, **OPTIONS[option])
    follow(stock, ours, make, 9)
    assert names_beside(ours) == names_beside(stock)


def test_shared_parameters_give_the_native_bits(workdir: Path, make: Make) -> None:
    """One pass and no clipping, which every rule's own test has."""
    follow(*write_pair(workdir, NETS["shared"], weight_decay=0.01), make, 8)


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_stages_and_two_test_nets_give_the_native_bits(
    workdir: Path, make: Make, rule: str
) -> None:
    stock, ours = write_staged_pair(workdir, type=rule, **RULES_OF_CAFFE[rule])
    first, second = follow(stock, ours, make, 7)
    same_test_nets(first, second)


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


def test_random_crops_mirroring_and_dropout_fall_as_in_caffe(
    workdir: Path, mnist: Path, make: Make
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


@pytest.mark.parametrize("host", PYTHON_HOSTS)
def test_verify_finds_no_difference_from_stock(cli: Any, workdir: Path, host: str) -> None:
    write_staged_pair(workdir, display=2)
    verified = cli("verify", "ours/solver.prototxt", "--iterations=7", f"--host={host}")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.splitlines()[-1].startswith("verify: 0 of ")


# -- pycaffe's interface --------------------------------------------------------------------------


def test_it_has_every_name_that_pycaffes_solver_has(workdir: Path, make: Make) -> None:
    stock, ours = write_pair(workdir, test_iter=2, test_interval=4)
    first, second = native(stock), make(ours)
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


@pytest.mark.parametrize(
    "make", [*PYTHON_HOSTS.values(), caffe_pysgd.SGDSolver], ids=[*PYTHON_HOSTS, "class"]
)
def test_path_yaml_and_message_are_the_same_run(workdir: Path, make: Make) -> None:
    stock, ours = write_pair(workdir, SMALL)
    expected = trail(native(stock), 4)
    message = text_format.Parse(ours.read_text(), pycaffe.messages().SolverParameter())
    before = message.SerializeToString()
    yaml = workdir / "run.yaml"
    yaml.write_text("solver: ours/solver.prototxt\n")
    for source in (ours, str(ours), yaml, str(yaml), "run.yaml", message):
        same_trails(expected, trail(make(source), 4))
    assert message.SerializeToString() == before


def test_what_the_yaml_overrides_is_trained_with(workdir: Path, make: Make) -> None:
    stock, _ = write_pair(workdir, SMALL)
    text = stock.read_text().replace("momentum: 0.9", "momentum: 0.5")
    stock.write_text(text + 'type: "Nesterov"\n')
    yaml = workdir / "run.yaml"
    yaml.write_text("solver: ours/solver.prototxt\nupdate: {rule: nesterov, momentum: 0.5}\n")
    same_trails(trail(native(stock), 5), trail(make(yaml), 5))


def test_step_by_step_by_hand_is_the_same_as_step(workdir: Path, make: Make) -> None:
    """Forward, backward and apply_update of one's own, as pycaffe's users write them."""
    stock, ours = write_pair(workdir, clip_gradients=0.5)
    trails = []
    for build, path in ((native, stock), (make, ours)):
        solver, weights = build(path), []
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


def test_setting_base_lr_in_param_works_as_in_pycaffe(workdir: Path, make: Make) -> None:
    stock, ours = write_pair(workdir)
    trails = []
    for build, path in ((native, stock), (make, ours)):
        solver = build(path)
        first = trail(solver, 3)
        solver.param.base_lr = 0.002
        assert solver.lr == np.float32(0.002)
        trails.append(first + trail(solver, 3))
        assert solver.lr == np.float32(0.002)
    same_trails(*trails)


def test_share_weights_lets_another_net_see_the_training(workdir: Path, make: Make) -> None:
    solver = make(write_solver(workdir))
    other = caffe.Net(str(workdir / "solver_net.prototxt"), caffe.TRAIN)
    solver.step(2)
    solver.share_weights(other)
    for iterations in (0, 2):
        solver.step(iterations)
        for layer, blobs in solver.net.params.items():
            for blob, seen in zip(blobs, other.params[layer]):
                assert blob.data.tobytes() == seen.data.tobytes()


def test_mistakes_are_user_errors_before_any_solver_is_there(workdir: Path, make: Make) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        make("no.prototxt")
    path = write_solver(workdir, type="AdaGrad", momentum=0.9)
    with pytest.raises(UserError, match="momentum"):
        make(path)
    (workdir / "file").touch()
    path = write_solver(workdir, snapshot=5, snapshot_prefix=workdir / "file" / "snapshot")
    with pytest.raises(UserError, match=r"snapshot.prefix"):
        make(path)
