"""The figures of an array, against their plain definitions."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, List

import numpy as np
import pytest
from helpers.observers import Figures

from caffe_pysgd.update import (
    RULES,
    HyperParameters,
    Observer,
    Parameter,
    Statistics,
    Updater,
    make_kernels,
)
from caffe_pysgd.update.statistics import CHUNK, LANES, norm, statistics


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, CHUNK, CHUNK + 1, 3 * CHUNK + 777])
def test_figures_are_what_they_are_called(size: int) -> None:
    rng = np.random.RandomState(size)
    array = (rng.standard_normal(size) * 10.0 ** rng.uniform(-30, 30, size)).astype(np.float32)
    array[rng.uniform(size=size) < 0.1] = 0
    wide = array.astype(np.longdouble)
    found = statistics(array)
    assert found.l2 == pytest.approx(float(np.sqrt((wide**2).sum())), rel=1e-12)
    scale = float(np.abs(wide).max())
    assert found.mean == pytest.approx(float(wide.mean()), rel=1e-9, abs=1e-9 * scale)
    assert (found.min, found.max) == (array.min(), array.max())
    assert (found.zeros, found.nonfinite) == (int((array == 0).sum()), 0)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    array = np.array([np.nan, 3, -np.inf, 0, -4, np.inf, -0.0], np.float32)
    assert statistics(array) == Statistics(5.0, -0.25, -4.0, 3.0, 2, 3)
    assert statistics(np.full(3, np.nan, np.float32)) == Statistics(0.0, 0.0, 0.0, 0.0, 0, 3)


@pytest.mark.parametrize("size", [1, 15, 16, 17, CHUNK, 2 * CHUNK + 777])
def test_a_norm_is_the_root_of_a_sum_in_a_fixed_order(size: int) -> None:
    array = np.random.RandomState(size).standard_normal(size).astype(np.float32)
    total = 0.0
    for start in range(0, size, CHUNK):
        lanes = [0.0] * LANES
        for i, value in enumerate(array[start : start + CHUNK].astype(float).tolist()):
            lanes[i % LANES] += value * value
        total += reduce(add, lanes)
    assert norm(array) == np.float32(total**0.5)
    assert norm(array) == np.float32(statistics(array).l2)


def test_a_norm_takes_in_what_is_not_finite() -> None:
    largest = np.finfo(np.float32).max
    expected = {(3, -4): 5, (2.0**-149, 0): 2.0**-149, (largest,): largest, (-0.0,): 0}
    expected.update({(largest, largest): np.inf, (1, -np.inf): np.inf, (-np.inf, np.nan): np.nan})
    for values, l2 in expected.items():
        with np.errstate(over="ignore"):
            found = norm(np.array(values, np.float32))
        assert type(found) is np.float32
        assert found == np.float32(l2) or (np.isnan(found) and np.isnan(l2))


class OddFigures(Figures):
    """Keeps the figures of odd iterations, and refuses iteration 2."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: List[int] = []

    def figures_due(self, iteration: int) -> bool:
        return iteration % 2 == 1

    def begin(self, iteration: int, rate: Any, parameters: Any) -> bool:
        return iteration != 2

    def end(self, iteration: int, rate: Any) -> None:
        self.ended.append(iteration)


def _updater(rule: str, observer: Observer, **h: Any) -> Updater:
    rng = np.random.RandomState(1)
    both = [
        Parameter(f"ip{i}/0", *rng.standard_normal((2, n)).astype(np.float32))
        for i, n in enumerate((5, 70))
    ]
    return Updater(
        both,
        HyperParameters(base_lr=0.1, momentum=0.9, weight_decay=0.01, **h),
        RULES[rule](),
        make_kernels("numpy", None),
        observers=[observer],
    )


@pytest.mark.parametrize("rule", ["sgd", "adam", "adamw", "lars"])
def test_an_observer_gets_the_figures_it_asks_for(rule: str) -> None:
    observer = OddFigures()
    updater = _updater(rule, observer, clip_gradients=0.5, iter_size=3)
    updater.step(0)
    assert not observer.heard and not observer.ended
    raw = [p.diff.copy() for p in updater.parameters]
    updater.step(1)
    assert observer.ended == [1]
    assert [name for _, name, _ in observer.heard] == ["ip0/0", "ip1/0"]
    for (_, _, figures), gradient, parameter, state in zip(
        observer.heard, raw, updater.parameters, updater.states
    ):
        assert set(figures) == {"gradient", "regularized", "update", "data", *state}
        assert figures["gradient"] == statistics(gradient)
        assert figures["update"] == statistics(parameter.diff)
        assert figures["data"] == statistics(parameter.data)
        for slot, array in state.items():
            assert figures[slot] == statistics(array)


def test_a_refused_update_changes_nothing_but_is_ended() -> None:
    observer = OddFigures()
    updater = _updater("sgd", observer)
    updater.step(1)
    before = [(p.data.copy(), state["history"].copy()) for p, state in zip(
        updater.parameters, updater.states)]  # fmt: skip
    updater.step(2)
    for (data, history), parameter, state in zip(before, updater.parameters, updater.states):
        assert parameter.data.tobytes() == data.tobytes()
        assert state["history"].tobytes() == history.tobytes()
    assert observer.ended == [1, 2]
