"""Rules as programs: what can be compiled, what cannot and why, and that the bits are the same."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest

from caffe_pysgd import UpdateRule
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import HyperParameters, Parameter, Updater, make_kernels
from caffe_pysgd.update.fused.passes import source
from caffe_pysgd.update.fused.program import Norms, trace

F = np.float32
LIBRARY = pycaffe.library_path()
H = dict(base_lr=0.1, momentum=0.9, weight_decay=0.01, delta=1e-4)


class Signum(UpdateRule):
    """What a user writes: an interpolated momentum, and its sign."""

    slots = ("momentum",)

    def update(self, p: Any) -> np.ndarray:
        momentum = p.state["momentum"]
        momentum += (1 - p.h.momentum) * (p.gradient - momentum)
        return p.rate * np.sign(momentum)


class Everything(UpdateRule):
    """All that is known to a program."""

    slots = ("low", "high", "mean", "old", "count")

    def update(self, p: Any) -> np.ndarray:
        g, low, high, mean = p.gradient, p.state["low"], p.state["high"], p.state["mean"]
        np.minimum(low, g, out=low)
        np.maximum(high, -g, out=high)
        mean[...] = np.where(np.abs(g) > 0.5, g, mean)
        np.copyto(p.state["old"], mean)
        p.state["count"] += g >= 0
        spread = np.sqrt(np.square(high - low) + p.h.delta) + mean**2 / (
            1 + np.abs(g).copy() ** 0.5
        )
        return p.rate * np.clip(g / spread, -1, None) + p.decay * p.data


class Phased(UpdateRule):
    """Branches, but not on values: on the iteration and on the rate."""

    def update(self, p: Any) -> np.ndarray:
        if p.iteration < 2:
            return p.rate * p.gradient
        return p.rate * np.sign(p.gradient) if p.iteration < 4 else p.gradient * 0.5


class Kerneled(UpdateRule):
    """Caffe's vector operations, with exact powers in places where Caffe has none."""

    slots = ("history", "other")

    def update(self, p: Any) -> np.ndarray:
        g, k, history, other = p.gradient, p.kernels, p.state["history"], p.state["other"]
        u, v = k.scratch(g), k.scratch(g, 1)
        k.powx(p.data, F(2), u)
        k.axpby(p.h.delta, u, p.h.momentum, history)
        k.powx(history, F(0.5), history)
        k.powx(history, F(0.5), v)
        k.axpy(F(0), u, v)
        k.mul(g, v, other)
        k.sign(other, u)
        k.axpy(p.rate, g, u)
        return u


class Normed(UpdateRule):
    """Norms of three arrays, one after the other."""

    slots = ("history",)

    def update(self, p: Any) -> np.ndarray:
        history = p.state["history"]
        history += p.gradient * np.linalg.norm(p.data)
        unit = history / np.linalg.norm(history)
        step = np.sign(unit) + unit
        return p.rate * np.where(np.linalg.norm(step) > 1, F(0.5), F(2)) * step + p.decay * p.data


RULES = (Signum, Everything, Phased, Kerneled, Normed)


def updater(rule: UpdateRule, kernels: str, **h: Any) -> Updater:
    rng = np.random.RandomState(3)
    parameters = [
        Parameter(f"ip{n}/0", rng.standard_normal(n).astype(F), np.zeros(n, F), n % 3, 1)
        for n in (1, 7, 3000, 66000)
    ]
    return Updater(parameters, HyperParameters(**{**H, **h}), rule, make_kernels(kernels, LIBRARY))


def trained(some: Updater, iterations: int = 6) -> List[bytes]:
    rng = np.random.RandomState(4)
    for iteration in range(iterations):
        for parameter in some.parameters:
            parameter.diff[...] = rng.standard_normal(parameter.count)
        some.step(iteration)
    arrays = [a for state in some.states for a in state.values()]
    arrays += [a for p in some.parameters for a in (p.data, p.diff)]
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_ones_own_is_fused_and_has_the_same_bits(rule: Any) -> None:
    fused, plain = updater(rule(), "fused"), updater(rule(), "native")
    assert trained(fused) == trained(plain)
    assert fused.kernels.unfused == {}


def program(rule: UpdateRule, **h: Any) -> Any:
    one = np.ones(2, F)
    norms = Norms(lambda: one, [])
    return trace(rule, HyperParameters(**{**H, **h}), one, one, 0, norms).program


def test_the_program_is_the_equation() -> None:
    assert program(Signum()).operations == (
        ("subtract", ("g", "s0")),
        ("multiply", ("c0", "v0")),
        ("add", ("s0", "v1")),
        ("sign", ("v2",)),
        ("multiply", ("c1", "v3")),
    )
    loop = source(program(Signum()), exact=True, checked=True)["at_once_2"]
    assert "v1 = c0 * v0" in loop and "slot0[i] = v2" in loop and "u = v4" in loop


class _Refused(UpdateRule):
    slots = ("history",)

    def __init__(self, what: Any) -> None:
        self.what, self.calls = what, 0

    def update(self, p: Any) -> Any:
        return self.what(self, p)


def count(rule: Any, p: Any) -> Any:
    rule.calls += 1
    return p.gradient * 1


def replace(rule: Any, p: Any) -> Any:
    p.state["history"] = p.gradient * 1
    return p.gradient * 1


def change_weights(rule: Any, p: Any) -> Any:
    p.data[...] = 0
    return p.gradient * 1


def norm_and_more(rule: Any, p: Any) -> Any:
    step = 2 * p.gradient
    return p.gradient * np.linalg.norm(step)


REASONS = {
    "after a norm it needs more than the array that this was of": norm_and_more,
    "it calls np.exp": lambda rule, p: np.exp(p.gradient),
    "it calls np.sum": lambda rule, p: p.gradient / np.sum(p.gradient),
    "it asks for an array's mean": lambda rule, p: p.gradient - p.gradient.mean(),
    "it branches on values": lambda rule, p: p.gradient if p.gradient > 0 else p.data,
    "it picks single values": lambda rule, p: p.gradient[1:],
    "it brings an array of its own": lambda rule, p: p.gradient * np.ones(3, F),
    "it takes a power": lambda rule, p: p.gradient**3,
    "it asks for the parameter's name": lambda rule, p: p.gradient * len(p.name),
    "it keeps something in itself": count,
    "it puts another array into its state": replace,
    "it changes the weights": change_weights,
    "what it returns does not depend on its arrays": lambda rule, p: 0,
    "AttributeError: 'HyperParameters' object has no attribute 'nesterov'": (
        lambda rule, p: p.h.nesterov
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_is_no_program_for_one_value_is_not_compiled(reason: str) -> None:
    some = updater(_Refused(REASONS[reason]), "fused")
    some.prepare()
    assert list(some.kernels.unfused.values()) == [reason]


class Late(UpdateRule):
    """No program any more from iteration 2 on."""

    def update(self, p: Any) -> np.ndarray:
        return p.rate * (p.gradient if p.iteration < 2 else np.exp(p.gradient))


def test_a_rule_may_stop_being_a_program() -> None:
    fused, plain = updater(Late(), "fused"), updater(Late(), "native")
    assert trained(fused) == trained(plain)
    assert list(fused.kernels.unfused.values()) == ["it calls np.exp"]


class Inverse(UpdateRule):
    def update(self, p: Any) -> np.ndarray:
        return p.rate / p.gradient


def test_an_update_that_is_not_finite_is_refused() -> None:
    some = updater(Inverse(), "fused", weight_decay=0)
    for parameter in some.parameters:
        parameter.diff[...] = 1
    some.parameters[2].diff[[10, 20]] = 0
    said = r"parameter ip3000/0, iteration 0: update\(\) returned 2 values that are not finite"
    with pytest.raises(UserError, match=said):
        some.step(0)
