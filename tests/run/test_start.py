"""Whether a net can start from a model: what Caffe would abort on is refused beforehand."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import caffe
import h5py
import numpy as np
import pytest
from helpers.failures import refusal
from helpers.nets import SHARED, SMALL, write_solver
from helpers.runs import caffe_train
from helpers.solvers import native

import caffe_pysgd
from caffe_pysgd.errors import UserError
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.start import check_weights
from caffe_pysgd.stock import pycaffe

Shape = Tuple[int, ...]
Layers = Dict[str, List[Shape]]

HERE: Layers = {"conv": [(5, 2, 3, 3), (5,)], "hidden": [(11, 125), (11,)], "out": [(3, 11)]}
SHARED_HERE: Layers = {"left": [(4, 98), (4,)], "right": [(4, 98), (4,)], "out": [(3, 4), (3,)]}
LEGACY: Layers = {"hidden": [(1, 1, 11, 125), (1, 1, 1, 11)], "conv": [(5, 2, 3, 3), (1, 1, 1, 5)]}

MODELS: Dict[str, Tuple[str, str, Layers, str]] = {
    "same": (SMALL, "binary", HERE, ""),
    "unknown layers": (SMALL, "binary", {"Out": [(9, 9)]}, ""),
    "another shape": (
        SMALL,
        "binary",
        {**HERE, "out": [(7, 11)]},
        "out/0 has shape (7, 11) there, (3, 11) here",
    ),
    "an axis of one more": (
        SMALL,
        "binary",
        {**HERE, "hidden": [(11, 125), (1, 11)]},
        "hidden/1 has shape (1, 11) there, (11,) here",
    ),
    "a blob too few": (
        SMALL,
        "binary",
        {"hidden": [(11, 125)]},
        "layer 'hidden' has 1 parameters there and 2 here",
    ),
    "a blob too many": (
        SMALL,
        "binary",
        {"out": [(3, 11), (3,)]},
        "layer 'out' has 2 parameters there and 1 here",
    ),
    "blobs for a layer that has none": (
        SMALL,
        "binary",
        {"relu": [(1,)]},
        "layer 'relu' has 1 parameters there and 0 here",
    ),
    "none for a layer that has some": (
        SMALL,
        "binary",
        {"out": []},
        "layer 'out' has 0 parameters there and 1 here",
    ),
    "four axes, legacy": (SMALL, "legacy", LEGACY, ""),
    "four axes, not legacy": (
        SMALL,
        "binary",
        LEGACY,
        "conv/1 has shape (1, 1, 1, 5) there, (5,) here",
    ),
    "legacy and another shape": (
        SMALL,
        "legacy",
        {"out": [(1, 1, 7, 11)]},
        "out/0 has shape (1, 1, 7, 11) there, (3, 11) here",
    ),
    "shared": (SHARED, "binary", SHARED_HERE, ""),
    "a sharer of another shape": (
        SHARED,
        "binary",
        {"right": [(98, 4), (4,)]},
        "right/0 has shape (98, 4) there, (4, 98) here",
    ),
    "HDF5, same": (SMALL, "hdf5", HERE, ""),
    "HDF5, another shape": (
        SMALL,
        "hdf5",
        {"out": [(7, 11)]},
        "out/0 has shape (7, 11) there, (3, 11) here",
    ),
    "HDF5, four axes": (
        SMALL,
        "hdf5",
        {"out": [(1, 1, 3, 11)]},
        "out/0 has shape (1, 1, 3, 11) there, (3, 11) here",
    ),
    "HDF5, a blob too few": (
        SMALL,
        "hdf5",
        {"hidden": [(11, 125)]},
        "layer 'hidden' has 1 parameters there and 2 here",
    ),
    "HDF5, a blob too many": (
        SMALL,
        "hdf5",
        {"out": [(3, 11), (3,)]},
        "layer 'out' has 2 parameters there and 1 here",
    ),
    "HDF5, sharers without": (SHARED, "hdf5", {**SHARED_HERE, "right": []}, ""),
    "HDF5, an owner without": (
        SHARED,
        "hdf5",
        {**SHARED_HERE, "left": []},
        "layer 'left' has 0 parameters there and 2 here",
    ),
}


def write_model(path: Path, kind: str, layers: Layers) -> None:
    """Write a model of ones, binary with shapes of now or of before Caffe 1.0, or HDF5."""
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, shapes in layers.items():
                group = file.create_group(f"data/{name}")
                for number, shape in enumerate(shapes):
                    group[str(number)] = np.ones(shape, np.float32)
        return
    net = pycaffe.messages().NetParameter()
    for name, shapes in layers.items():
        layer = net.layer.add(name=name, type="Any")
        for shape in shapes:
            describe(layer.blobs.add(data=np.ones(shape).ravel()), kind, shape)
    path.write_bytes(net.SerializeToString())


def describe(blob: Any, kind: str, shape: Sequence[int]) -> None:
    if kind == "legacy":
        blob.num, blob.channels, blob.height, blob.width = shape
    else:
        blob.shape.dim.extend(shape)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Run]:
    """The two nets, resolved once."""
    solvers = {net: tmp_path_factory.mktemp("net") for net in (SMALL, SHARED)}
    return {net: resolve(write_solver(at, net, max_iter=1)) for net, at in solvers.items()}


@pytest.mark.parametrize("case", MODELS)
def test_what_caffe_aborts_on_is_refused_and_nothing_else(
    workdir: Path, runs: Dict[str, Run], case: str
) -> None:
    net, kind, layers, misfit = MODELS[case]
    run = runs[net]
    model = workdir / ("w.h5" if kind == "hdf5" else "w.caffemodel")
    write_model(model, kind, layers)
    trained = caffe_train(run.source, f"--weights={model}")
    if not misfit:
        assert trained.returncode == 0, trained.stderr[-2000:]
        assert check_weights(model, run) == model
        return
    assert trained.returncode == -6, trained.stderr[-2000:]
    assert refusal(check_weights, model, run) == (
        f"{model}: does not fit this net: {misfit}; weights are copied by layer name, so to learn "
        "this layer from scratch, rename it in the net"
    )


@pytest.mark.parametrize("command", ["train", "solve"])
def test_the_commands_end_with_one_line(
    cli: Callable[..., subprocess.CompletedProcess], workdir: Path, command: str
) -> None:
    write_solver(workdir, max_iter=1)
    write_model(workdir / "a.caffemodel", "binary", HERE)
    write_model(workdir / "b.caffemodel", "binary", {"out": [(7, 11)]})
    refused = cli(command, "solver.prototxt", "--weights=a.caffemodel,b.caffemodel")
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "caffe-pysgd: b.caffemodel: does not fit this net: out/0 has shape (7, 11) there, (3, 11) "
        "here; weights are copied by layer name, so to learn this layer from scratch, rename it in "
        "the net"
    ]
    net = workdir / "solver_net.prototxt"
    net.write_text(SMALL.replace('name: "out"', 'name: "out_7"'))
    fine = cli(command, "solver.prototxt", "--weights=a.caffemodel,b.caffemodel")
    assert fine.returncode == 0, fine.stderr


def test_restoring_a_model_that_differs_in_an_axis_of_one_changes_nothing(workdir: Path) -> None:
    """Caffe would abort, and take the notebook along."""
    solver = write_solver(workdir, max_iter=4)
    first = native(solver)
    first.step(2)
    first.snapshot()
    model = workdir / "solver_iter_2.caffemodel"
    message = pycaffe.messages().NetParameter.FromString(model.read_bytes())
    for layer in message.layer:
        if layer.name == "hidden":
            layer.blobs[1].shape.dim.insert(0, 1)
    model.write_bytes(message.SerializeToString())
    ours = caffe_pysgd.get_solver(str(solver))
    before = [np.array(blob.data) for blobs in ours.net.params.values() for blob in blobs]
    with pytest.raises(UserError, match=r"another net: hidden/1 has shape \(1, 11\) there"):
        ours.restore("solver_iter_2.solverstate")
    after = [blob.data for blobs in ours.net.params.values() for blob in blobs]
    assert [a.tobytes() for a in before] == [b.tobytes() for b in after]
    assert isinstance(ours.net, caffe.Net)
    assert ours.iter == 0
