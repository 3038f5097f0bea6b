"""Every combination of special values, for every native rule, with all that can be around it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import caffe
import numpy as np
import pytest
from helpers.nets import write_solver
from helpers.observers import Figures

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import SolverState, read_solver_state, write_solver_state
from caffe_pysgd.update import (
    NATIVE_RULES,
    HyperParameters,
    Parameter,
    Statistics,
    Updater,
    make_kernels,
)
from caffe_pysgd.update.bits import compare

F = np.float32
LIBRARY = pycaffe.library_path()
RULES = {rule.name: rule for rule in NATIVE_RULES.values()}
MOMENTUM = {"sgd": 0.95, "nesterov": 0.95, "adadelta": 0.95, "adam": 0.9}

# Both zeros, denormals, the smallest normal, 1 and its neighbours, the largest; and where a square
# or a product becomes a denormal, underflows and overflows.
_MAGNITUDES = [
    F(0), F(2.0**-149), F(2.0**-126 - 2.0**-149), F(2.0**-126), F(2.0**-75), F(2.0**-64),
    F(1 - 2.0**-24), F(1), F(1 + 2.0**-23),
]  # fmt: skip
_BEYOND = [F(2.0**64), np.finfo(F).max, F(np.inf)]
SMALL = [sign * value for value in _MAGNITUDES for sign in (F(1), F(-1))]
ALL = SMALL + [sign * value for value in _BEYOND for sign in (F(1), F(-1))] + [F(np.nan)]

DECAYS = {"none": (0, "L2"), "L2": (0.0005, "L2"), "L1": (0.0005, "L1")}
LEAVES = {
    "zeros": {"clears_diffs": True},
    "update": {"keeps_update": True},
    "anything": {"keeps_update": False},
}


class Lengths(Figures):
    """Looks at the figures, and keeps none."""

    def measure(
        self, iteration: int, rate: Any, parameter: Any, figures: Mapping[str, Statistics]
    ) -> None:
        assert figures["gradient"].l2 > 0


def combinations(values: List[np.float32], arrays: int) -> np.ndarray:
    """Return every combination of the values: an array of shape (arrays, values ** arrays)."""
    grid = np.meshgrid(*[np.array(values, F)] * arrays, indexing="ij")
    return np.stack([axis.ravel() for axis in grid])


def updated(
    kernels: str,
    rule: str,
    table: np.ndarray,
    settings: Dict[str, Any],
    observers: Any = (),
    clears_diffs: bool = False,
    keeps_update: bool = True,
) -> Dict[str, np.ndarray]:
    """Return what one update makes of a table of data, diff and the slots."""
    data, diff, *slots = (row.copy() for row in table)
    state = dict(zip(RULES[rule].slots, slots))
    updater = Updater(
        [Parameter("ip/0", data, diff)],
        HyperParameters(base_lr=0.01, momentum=MOMENTUM.get(rule, 0), **settings),
        RULES[rule](),
        make_kernels(kernels, LIBRARY),
        states=[state],
        observers=observers,
        clears_diffs=clears_diffs,
    )
    updater.keeps_update = keeps_update
    updater.step(0)
    left = {"diff": diff} if clears_diffs or keeps_update else {}
    return {"data": data, **left, **state}


def tables(rule: str, decay: str) -> Iterator[Tuple[Dict[str, Any], np.ndarray]]:
    """Yield settings, and the combinations of values that go with them."""
    weight_decay, regularization = DECAYS[decay]
    arrays = 2 + len(RULES[rule].slots)
    for (clip, values), iter_size in product(((-1, ALL), (3, SMALL)), (1, 3)):
        settings = dict(
            weight_decay=weight_decay,
            regularization_type=regularization,
            clip_gradients=clip,
            iter_size=iter_size,
        )
        yield settings, combinations(values, arrays)


def same_values(
    what: str,
    table: np.ndarray,
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> None:
    assert found.keys() == expected.keys()
    for name, values in found.items():
        result = compare(f"{name}, {what}", expected[name], values)
        assert not result.differ, (str(result), table[:, result.first])


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("rule", RULES)
def test_fused_kernels_have_the_bits_of_the_native_ones(rule: str, decay: str) -> None:
    for settings, table in tables(rule, decay):
        for leaves, more in LEAVES.items():
            expected = updated("native", rule, table, settings, **more)
            for observers in ((), (Lengths(),)):
                found = updated("fused", rule, table, settings, observers, **more)
                what = f"{settings}, diffs: {leaves}, {observers}"
                same_values(what, table, expected, found)


TYPES = {rule.name: solver_type for solver_type, rule in NATIVE_RULES.items()}


def updated_by_stock(
    workdir: Path, rule: str, table: np.ndarray, settings: Dict[str, Any]
) -> Dict[str, np.ndarray]:
    """Return what stock Caffe's ``ApplyUpdate`` makes of a table, history included."""
    count = table.shape[1]
    net = f"""
layer {{
  name: "ip" type: "Parameter" top: "ip" parameter_param {{ shape {{ dim: {count} }} }}
}}
layer {{ name: "silence" type: "Silence" bottom: "ip" }}"""
    fields = {"type": TYPES[rule], "momentum": MOMENTUM.get(rule, 0), **settings}
    solver = caffe.get_solver(str(write_solver(workdir, net, **fields)))
    blob = solver.net.params["ip"][0]
    data, diff, *history = table
    blob.data[...] = data
    before, after = workdir / "before.solverstate", workdir / "solver_iter_1.solverstate"
    model = workdir / "before.caffemodel"
    solver.net.save(str(model))
    write_solver_state(before, SolverState(0, 0, model, list(history)), [(count,)] * len(history))
    solver.restore(str(before))
    blob.diff[...] = diff
    solver.apply_update()
    solver.snapshot()
    left = read_solver_state(after).history
    return {"data": blob.data, "diff": blob.diff, **dict(zip(RULES[rule].slots, left))}


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("rule", RULES)
def test_native_kernels_have_the_bits_of_stock_caffe(workdir: Path, rule: str, decay: str) -> None:
    for settings, table in tables(rule, decay):
        found = updated("native", rule, table, settings)
        expected = updated_by_stock(workdir, rule, table, settings)
        same_values(str(settings), table, expected, found)
