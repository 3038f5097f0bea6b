"""The update against ``solver.apply_update()``: one table of options, random gradients, 0 ulp."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import caffe
import numpy as np
import pytest
from nets import DATA, write_solver

from caffe_pysgd import pycaffe
from caffe_pysgd.compare import compare
from caffe_pysgd.prototxt.solver import hyperparameters, read_solver
from caffe_pysgd.snapshots import read_solver_state
from caffe_pysgd.update import RULES, Parameter, Updater, make_kernels

# Lengths below, at and beyond what a BLAS kernel takes in one go, each with a remainder.
ODD_LENGTHS = (
    'name: "odd"'
    + DATA
    + "".join(
        f"""
layer {{
  name: "ip{n}" type: "InnerProduct" bottom: "data" top: "ip{n}"
  param {{ lr_mult: {lr} decay_mult: {decay} }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: {n} weight_filler {{ type: "gaussian" std: {std} }} }}
}}
layer {{ name: "silence{n}" type: "Silence" bottom: "ip{n}" }}"""
        for n, lr, decay, std in ((1, 1, 1, 0.1), (3, 0.5, 2, 1e-3), (17, 0, 1, 10), (67, 1, 1, 1))
    )
    + ' layer { name: "t" type: "Silence" bottom: "target" }'
)

OPTIONS: Dict[str, Dict[str, Any]] = {
    "plain": {"momentum": 0, "weight_decay": 0},
    "momentum": {"momentum": 0.9, "weight_decay": 0},
    "L2": {"weight_decay": 0.0005},
    "L1": {"weight_decay": 0.0005, "regularization_type": "L1"},
    "clip": {"clip_gradients": 5},
    "clip to nothing": {"clip_gradients": 0},
    "clip never": {"clip_gradients": 1e30},
    "iter_size": {"iter_size": 3},
    "all": {
        "momentum": 0.95,
        "weight_decay": 0.004,
        "regularization_type": "L1",
        "clip_gradients": 2.5,
        "iter_size": 7,
        "lr_policy": "inv",
        "gamma": 0.01,
        "power": 0.75,
    },
}

MAGNITUDES = ("mixed", "denormal", "huge", "zeros")


def random_gradient(rng: np.random.RandomState, shape: Any, magnitude: str) -> np.ndarray:
    """Return gradients of many magnitudes, with exact zeros of both signs among them."""
    gradient = rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 1)
    if magnitude == "denormal":
        gradient *= 1e-38
    if magnitude == "huge":
        gradient *= 1e14
    if magnitude == "zeros":
        gradient *= 0
    gradient[rng.uniform(size=shape) < 0.1] = 0.0
    gradient[rng.uniform(size=shape) < 0.1] = -0.0
    return gradient.astype(np.float32)


def blobs_of(solver: Any) -> List[Any]:
    return [blob for blobs in solver.net.params.values() for blob in blobs]


def parameters_like(solver: Any, path: Path) -> List[Parameter]:
    """Return copies of the solver's parameters, with the multipliers in its net file."""
    net = pycaffe.messages().NetParameter()
    from google.protobuf import text_format

    text_format.Parse(Path(read_solver(path).net).read_text(), net)
    specs = {layer.name: layer.param for layer in net.layer}
    return [
        Parameter(
            f"{layer}/{i}",
            blob.data.copy().ravel(),
            blob.diff.copy().ravel(),
            specs[layer][i].lr_mult,
            specs[layer][i].decay_mult,
        )
        for layer, blobs in solver.net.params.items()
        for i, blob in enumerate(blobs)
    ]


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("rule", ["SGD"])
def test_updates_have_the_bits_of_the_native_solver(
    workdir: Path, rule: str, option: str, magnitude: str
) -> None:
    path = write_solver(workdir, ODD_LENGTHS, type=rule, **OPTIONS[option])
    native = caffe.get_solver(str(path))
    h = hyperparameters(path, read_solver(path))
    parameters = parameters_like(native, path)
    kernels = make_kernels("native", pycaffe.library_path())
    updater = Updater(parameters, h, RULES[rule.lower()](h), kernels)
    rng = np.random.RandomState(3)
    for iteration in range(60):
        for blob, parameter in zip(blobs_of(native), parameters):
            blob.diff[...] = random_gradient(rng, blob.data.shape, magnitude)
            parameter.diff[...] = blob.diff.ravel()
        native.apply_update()
        updater.step(iteration)
        for blob, parameter in zip(blobs_of(native), parameters):
            for what, expected, found in (
                ("update", blob.diff, parameter.diff),
                ("data", blob.data, parameter.data),
            ):
                result = compare(f"{parameter.name} {what}", expected.ravel(), found)
                assert not result.differ, f"iteration {iteration}: {result}"
    native.snapshot()
    history = read_solver_state(Path(f"{workdir}/solver_iter_60.solverstate")).history
    slots = RULES[rule.lower()].slots
    ours = [state[slot] for slot in slots for state in updater.states]
    for expected, found, parameter in zip(history, ours, parameters * len(slots)):
        assert not compare(f"{parameter.name} history", expected, found).differ
    assert len(history) == len(ours)
