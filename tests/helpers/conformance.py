"""Our update and ``solver.apply_update()`` on the same random gradients, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import caffe
import numpy as np

from caffe_pysgd.run.resolve import hyperparameters
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.snapshots import read_solver_state
from caffe_pysgd.stock.solver_file import read_solver
from caffe_pysgd.update import NATIVE_RULES, Parameter, Updater, make_kernels
from caffe_pysgd.update.bits import compare
from helpers.nets import DATA

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

MAGNITUDES = ("mixed", "denormal", "huge", "zeros")


def random_gradient(rng: np.random.RandomState, shape: Any, magnitude: str) -> np.ndarray:
    """Return gradients of many magnitudes, with exact zeros of both signs among them."""
    gradient = rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 1)
    gradient *= {"mixed": 1, "denormal": 1e-38, "huge": 1e14, "zeros": 0}[magnitude]
    gradient[rng.uniform(size=shape) < 0.1] = 0.0
    gradient[rng.uniform(size=shape) < 0.1] = -0.0
    return gradient.astype(np.float32)


def assert_conforming(
    path: Path, magnitude: str, iterations: int, kernels: str = "native", seed: int = 3
) -> None:
    """Update both ways and compare every value of update, data and, at the end, history.

    A failure names the iteration, the parameter, the stage, the index and both values.
    """
    solver = read_solver(path)
    native = caffe.get_solver(str(path))
    h = hyperparameters(solver, {})
    parameters = _copies(native, path)
    rule = NATIVE_RULES[solver.type]()
    updater = Updater(parameters, h, rule, make_kernels(kernels, pycaffe.library_path()))
    rng = np.random.RandomState(seed)
    blobs = [blob for blobs in native.net.params.values() for blob in blobs]
    for iteration in range(iterations):
        for blob, parameter in zip(blobs, parameters):
            blob.diff[...] = random_gradient(rng, blob.data.shape, magnitude)
            parameter.diff[...] = blob.diff.ravel()
        native.apply_update()
        updater.step(iteration)
        for blob, parameter in zip(blobs, parameters):
            _same(iteration, f"update of {parameter.name}", blob.diff.ravel(), parameter.diff)
            _same(iteration, f"data of {parameter.name}", blob.data.ravel(), parameter.data)
    native.snapshot()
    state = read_solver_state(Path(f"{solver.snapshot_prefix}_iter_{iterations}.solverstate"))
    assert state.current_step == updater.current_step
    ours = [
        (f"{slot} of {p.name}", slots[slot])
        for slot in rule.slots
        for p, slots in zip(parameters, updater.states)
    ]
    assert len(ours) == len(state.history)
    for (name, found), expected in zip(ours, state.history):
        _same(iterations, name, expected, found)


def _same(iteration: int, name: str, expected: np.ndarray, found: np.ndarray) -> None:
    result = compare(name, expected, found)
    assert not result.differ, f"iteration {iteration}: {result}"


def _copies(solver: Any, path: Path) -> List[Parameter]:
    """Return copies of the solver's parameters, with the multipliers in its net file."""
    net = read_net(Path(read_solver(path).net))
    specs = {layer.name: list(layer.param) for layer in net.layer}
    default = pycaffe.messages().ParamSpec()
    copies = []
    for layer, blobs in solver.net.params.items():
        for blob, spec in zip(blobs, specs[layer] + [default] * len(blobs)):
            copies.append(
                Parameter(
                    f"{layer}/{len([c for c in copies if c.name.startswith(layer + '/')])}",
                    blob.data.copy().ravel(),
                    blob.diff.copy().ravel(),
                    spec.lr_mult,
                    spec.decay_mult,
                )
            )
    return copies
