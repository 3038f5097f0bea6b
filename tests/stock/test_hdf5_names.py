"""What HDF5 cannot hold: the prediction against the real Caffe, which saves and loads each net."""

from __future__ import annotations

import faulthandler
import os
import random
from pathlib import Path
from typing import Any, Callable, List, Tuple

import caffe
import numpy as np
import pytest
from helpers.failures import failure
from helpers.nets import SMALL, write_solver

import caffe_pysgd
from caffe_pysgd.errors import SettingError
from caffe_pysgd.stock.hdf5_names import unfit_layer

NAMES = ["a", "b", "a/b", "a/0", "a/b/c", "", "/a", "a/", "./a", ".", "a//b", "/", "/data/a", "..",
         "a/..", "0", "1", "a/.", "data", "/data", "/x/y"]  # fmt: skip

DATA = """
layer { name: "in" type: "DummyData" top: "top"
  dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" std: 1 } } }
"""
DENSE = """
layer { name: "%s" type: "InnerProduct" bottom: "top" top: "top%d" %s
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 } } }
"""
SHARING = 'param { name: "w" } param { name: "b" }'
EMPTY = 'layer { name: "%s" type: "TanH" bottom: "top" top: "top%d" }\n'

Layer = Tuple[str, bool, bool]
"""Its name, whether it has parameters, and whether those are shared."""


def prototxt(layers: List[Layer]) -> str:
    text = 'name: "net"' + DATA
    for number, (name, learns, shares) in enumerate(layers):
        fields = (name, number, SHARING if shares else "") if learns else (name, number)
        text += (DENSE if learns else EMPTY) % fields
    return text


def caffe_can(path: Path) -> bool:
    """Whether Caffe gets a net's weights back that it saved, in a process that may abort."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # that it aborts is no news
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        nets = [caffe.Net(str(path), caffe.TRAIN) for _ in range(2)]
        saved = str(path.with_suffix(".h5"))
        nets[0].save_hdf5(saved)
        nets[1].load_hdf5(saved)
        layers = zip(*(net.layers for net in nets))
        blobs = [pair for both in layers for pair in zip(*(layer.blobs for layer in both))]
        os._exit(0 if all(np.array_equal(a.data, b.data) for a, b in blobs) else 1)
    _, status = os.waitpid(child, 0)
    return status == 0


def predicted(layers: List[Layer]) -> str:
    owned, shared, seen = [], [], False
    for name, learns, shares in layers:
        if learns:
            (shared if shares and seen else owned).extend([(name, 0), (name, 1)])
            seen = seen or shares
    # Where several layers use a top, Caffe adds one that splits it.
    split = ["top_in_0_split"] if len(layers) > 1 else []
    return unfit_layer(["in", *split, *(name for name, _, _ in layers)], owned, shared)


def test_the_prediction_is_what_caffe_does(tmp_path: Path) -> None:
    rng, found = random.Random(5), {True: 0, False: 0}
    while sum(found.values()) < 120:
        layers = [
            (rng.choice(NAMES), rng.random() < 0.7, rng.random() < 0.3)
            for _ in range(rng.randint(1, 3))
        ]
        names = [name for name, learns, _ in layers if learns]
        if any(sum(name == other for other, _, _ in layers) > 1 for name in names):
            continue  # refused in any case
        path = tmp_path / "net.prototxt"
        path.write_text(prototxt(layers))
        fits = caffe_can(path)
        assert bool(predicted(layers)) != fits, (layers, predicted(layers), fits)
        found[fits] += 1
    assert min(found.values()) > 10


SPLIT_NET = SMALL.replace('bottom: "out" bottom', 'bottom: "a/b" bottom').replace(
    'top: "out"', 'top: "a/b"'
)
SPLIT = """
layer { name: "more" type: "TanH" bottom: "a/b" top: "more" }
layer { name: "again" type: "TanH" bottom: "a/b" top: "again" }
"""
UNFIT = {
    "a slash": (SMALL.replace('"relu"', '"conv/relu_"'), "layer 'conv/relu_' would lie inside of"),
    "a slash without its group": (SMALL.replace('"tanh"', '"a/tanh"'), "layer 'a/tanh' has a name"),
    "no name": (SMALL.replace('name: "relu" ', ""), "a layer has no name"),
    "one name twice": (SMALL.replace('"relu"', '"tanh"'), "two layers are called 'tanh'"),
    "inside of another": (
        SMALL.replace('name: "out"', 'name: "hidden/out"'),
        "layer 'hidden/out' would lie inside of 'hidden'",
    ),
    "of a split": (SPLIT_NET + SPLIT, "layer 'a/b_out_0_split' has a name"),
}  # fmt: skip


@pytest.mark.parametrize("net, words", UNFIT.values(), ids=list(UNFIT))
def test_it_is_told_before_training_in_every_host(
    workdir: Path, cli: Callable[..., Any], net: str, words: str
) -> None:
    path = write_solver(workdir, net, max_iter=2, snapshot_format="HDF5")
    hdf5 = "solver.prototxt: snapshot_format: got 'HDF5'; "
    said = failure(cli("train", "solver.prototxt"))
    assert said.startswith(hdf5 + words), said
    for make in (caffe_pysgd.take_over, caffe_pysgd.get_solver):
        with pytest.raises(SettingError, match="HDF5"):
            make(path)


def test_the_other_commands_tell_it_too(workdir: Path, cli: Callable[..., Any]) -> None:
    net = SMALL.replace('"tanh"', '"a/tanh"')
    write_solver(workdir, net, max_iter=2, snapshot_format="HDF5")
    assert "layer 'a/tanh'" in failure(cli("inject", "solver.prototxt", "--run-dir=d"))
    solved = cli("solve", "solver.prototxt")
    assert solved.returncode == 2
    assert "layer 'a/tanh'" in solved.stderr
    assert "Starting Optimization" not in solved.stderr
    assert not list(workdir.rglob("*.h5"))
    assert cli("train", write_solver(workdir, net, max_iter=2)).returncode == 0


def test_a_net_that_it_can_hold_is_not_refused(workdir: Path, cli: Callable[..., Any]) -> None:
    """A part of a path that is there, and nothing in it that is loaded by its name."""
    net = SMALL.replace('"tanh"', '"./tanh"')
    write_solver(workdir, net, max_iter=2, snapshot_format="HDF5")
    for command in ("train", "solve"):
        done = cli(command, "solver.prototxt")
        assert done.returncode == 0, done.stderr


def test_a_snapshot_that_somebody_asks_for_is_refused(workdir: Path) -> None:
    """Where a run takes none by itself, training is as good as ever."""
    fields = {"snapshot_format": "HDF5", "snapshot_after_train": False}
    path = write_solver(workdir, SMALL.replace('"tanh"', '"a/tanh"'), max_iter=2, **fields)
    for make in (caffe_pysgd.take_over, caffe_pysgd.get_solver):
        solver = make(path)
        solver.step(1)
        with pytest.raises(SettingError, match="layer 'a/tanh'"):
            solver.snapshot()
