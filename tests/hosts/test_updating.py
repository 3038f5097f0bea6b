"""The blobs' memory can move under an update: it follows, and otherwise keeps its arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List

import caffe
import numpy as np
import pytest
from helpers.hosts import Make
from helpers.nets import DATA, SMALL, write_solver
from helpers.runs import caffe_train
from helpers.solvers import (
    Weights,
    bits,
    native,
    same,
    same_snapshots,
    snapshot_name,
    weights_of,
    write_pair,
)

from caffe_pysgd import UserError, get_solver


def reshape_bigger_and_back(solver: Any, folder: Path) -> None:
    for layer, index in (("hidden", 0), ("conv", 1)):
        blob = solver.net.params[layer][index]
        values, shape = np.array(blob.data), tuple(blob.shape)
        blob.reshape(3000, 7)
        blob.data[...] = 1
        blob.reshape(*shape)
        blob.data[...] = values


def share_with(solver: Any, folder: Path) -> None:
    other = caffe.Net(str(folder / "solver_net.prototxt"), caffe.TRAIN)
    caffe.set_random_seed(3)
    for blobs in other.params.values():
        for blob in blobs:
            blob.data[...] = 0.01
    solver.net.share_with(other)
    solver.net.other = other  # lives as long


def copy_from(solver: Any, folder: Path) -> None:
    model = str(folder / "kept.caffemodel")
    solver.net.save(model)
    solver.step(1)
    solver.net.copy_from(model)


def net_reshape(solver: Any, folder: Path) -> None:
    solver.net.blobs["data"].reshape(9, 2, 7, 7)
    solver.net.blobs["data"].reshape(6, 2, 7, 7)
    solver.net.reshape()


MOVES: List[Callable[[Any, Path], None]] = [
    reshape_bigger_and_back,
    share_with,
    copy_from,
    net_reshape,
]


@pytest.mark.parametrize("move", MOVES)
def test_the_bits_stay_those_of_the_native_solver_whatever_moves(
    workdir: Path, make: Make, move: Callable[[Any, Path], None]
) -> None:
    weights: List[List[Weights]] = []
    for build, path in zip((native, make), write_pair(workdir)):
        solver = build(str(path))
        solver.step(2)
        move(solver, path.parent)
        weights.append([weights_of(solver)])
        for _ in range(2):
            solver.step(2)
            weights[-1].append(weights_of(solver))
    assert bits(weights[0][0]) != bits(weights[0][1]) != bits(weights[0][2])
    for stage, (expected, found) in enumerate(zip(*weights)):
        same(expected, found, f"at stage {stage} after {move.__name__}")


def test_arrays_are_kept_as_long_as_the_memory_is_the_same(workdir: Path) -> None:
    solver = get_solver(str(write_solver(workdir)))

    def arrays() -> List[np.ndarray]:
        return [array for p in solver.updater.parameters for array in (p.data, p.diff)]

    before = arrays()
    solver.step(2)
    solver.net.reshape()
    solver.step(1)
    assert all(now is then for now, then in zip(arrays(), before))
    blob = solver.net.params["hidden"][0]
    blob.reshape(3000, 7)
    blob.reshape(11, 125)
    solver.step(1)
    kept = [now is then for now, then in zip(arrays(), before)]
    names = [p.name for p in solver.updater.parameters for _ in (p.data, p.diff)]
    assert [name for name, same_one in zip(names, kept) if not same_one] == ["hidden/0"] * 2
    for parameter, blobs in zip(solver.updater.parameters, solver._blobs):
        assert np.shares_memory(parameter.data, blobs.data)
        assert np.shares_memory(parameter.diff, blobs.diff)


@pytest.mark.parametrize("shape", [(12, 125), (10, 125)], ids=["more", "fewer"])
def test_a_blob_of_another_size_is_refused(workdir: Path, make: Make, shape: Any) -> None:
    """The native solver would write past the end of its history."""
    solver = make(str(write_solver(workdir)))
    solver.step(1)
    solver.net.params["hidden"][0].reshape(*shape)
    with pytest.raises(
        UserError, match=f"hidden/0: its blob was reshaped and has {shape[0] * 125}"
    ):
        solver.apply_update()


MOVING_LAYER = """
import caffe


class Moving(caffe.Layer):
    passes = 0

    def setup(self, bottom, top):
        self.blobs.add_blob(3)
        self.blobs[0].data[...] = 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.passes += 1
        if self.passes == 3:
            weights = self.blobs[0].data.copy()
            self.blobs[0].reshape(50000)
            self.blobs[0].data[...] = 7
            self.blobs[0].diff[...] = 0
            self.blobs[0].reshape(3)
            self.blobs[0].data[...] = weights
        top[0].data[...] = bottom[0].data * self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(axis=0)
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data
"""


def test_solve_follows_a_python_layer_that_moves_its_weights(workdir: Path, cli: Any) -> None:
    (workdir / "moving.py").write_text(MOVING_LAYER)
    moving = """layer { name: "moving" type: "Python" bottom: "out" top: "scaled"
      python_param { module: "moving" layer: "Moving" } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "scaled" """
    net = SMALL.replace('layer { name: "loss" type: "EuclideanLoss" bottom: "out"', moving)
    assert net.startswith('name: "small"' + DATA) and "Moving" in net
    stock, ours = write_pair(workdir, net, max_iter=6)
    trained = caffe_train(stock, PYTHONPATH=str(workdir))
    solved = cli("solve", ours, PYTHONPATH=str(workdir))
    assert (trained.returncode, solved.returncode) == (0, 0), trained.stderr + solved.stderr
    same_snapshots(snapshot_name(stock, 6), snapshot_name(ours, 6))


@pytest.mark.parametrize("clears_diffs", [False, True])
def test_an_undisturbed_solver_has_the_same_bits(workdir: Path, clears_diffs: bool) -> None:
    stock, ours = write_pair(workdir, lr_policy="inv", gamma=0.1, power=0.75)
    first, second = native(stock), get_solver(str(ours))
    assert not second.undisturbed
    second.undisturbed, second.updater.clears_diffs = True, clears_diffs
    for seed in range(3):
        for solver in (first, second):
            caffe.set_random_seed(seed + 1)
            solver.step(3)
        same(weights_of(first), weights_of(second), f"at {second.iter}")
