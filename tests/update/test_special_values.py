"""Every combination of special values, for every native rule, with all that can be around it."""

from __future__ import annotations

from itertools import product
from typing import Any, Dict, List, Mapping

import numpy as np
import pytest

from caffe_pysgd import pycaffe
from caffe_pysgd.compare import compare
from caffe_pysgd.update import (
    NATIVE_RULES,
    HyperParameters,
    Observer,
    Parameter,
    Statistics,
    Updater,
    make_kernels,
)

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


class Figures(Observer):
    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return True

    def measure(
        self, iteration: int, rate: Any, parameter: Any, figures: Mapping[str, Statistics]
    ) -> None:
        assert figures["gradient"].l2 > 0


def one_nan(values: np.ndarray) -> np.ndarray:
    """Return the values with the same bits in every NaN: those are not promised.

    A processor hands on one of two NaNs by the order of the operands, which compilers choose.
    """
    return np.where(np.isnan(values), F(np.nan), values)


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


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("rule", RULES)
def test_fused_kernels_have_the_bits_of_the_native_ones(rule: str, decay: str) -> None:
    weight_decay, regularization = DECAYS[decay]
    arrays = 2 + len(RULES[rule].slots)
    tables = {-1: combinations(ALL, arrays), 3: combinations(SMALL, arrays)}
    for (clip, table), iter_size in product(tables.items(), (1, 3)):
        settings = dict(
            weight_decay=weight_decay,
            regularization_type=regularization,
            clip_gradients=clip,
            iter_size=iter_size,
        )
        for leaves, more in LEAVES.items():
            expected = updated("native", rule, table, settings, **more)
            for observers in ((), (Figures(),)):
                found = updated("fused", rule, table, settings, observers, **more)
                assert found.keys() == expected.keys()
                for name, values in found.items():
                    what = f"{name}, {settings}, diffs: {leaves}, {observers}"
                    result = compare(what, one_nan(expected[name]), one_nan(values))
                    assert not result.differ, (str(result), table[:, result.first])
