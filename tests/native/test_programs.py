"""Rules as programs: what can be compiled, what cannot and why, and that the bits are the same."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest

from caffe_pysgd import UpdateRule
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import HyperParameters, Parameter, Updater, make_kernels
from caffe_pysgd.update.fused import machine
from caffe_pysgd.update.fused.keeping import keeping
from caffe_pysgd.update.fused.program import trace
from caffe_pysgd.update.rules.beyond import LARS, Lamb
from caffe_pysgd.update.statistics import CHUNK

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
    """Norms that depend on norms; the state and the gradient are needed before and after."""

    slots = ("history", "last")

    def update(self, p: Any) -> np.ndarray:
        history, last = p.state["history"], p.state["last"]
        data_norm, gradient_norm, last_norm = p.norms(p.data, p.gradient, last)
        history += p.gradient / data_norm
        history_norm, difference_norm = p.norms(history, history - last)
        unit = history / history_norm
        step = np.sign(unit) + unit + last / difference_norm
        (step_norm,) = p.norms(step)
        last[...] = np.where(2 * last_norm > gradient_norm, step, p.gradient)
        return p.rate * np.where(step_norm > 1, F(0.5), F(2)) * step + p.decay * p.data


class NormedPowers(UpdateRule):
    """Norms on both sides of Caffe's powers, also of what is in memory."""

    slots = ("history",)

    def update(self, p: Any) -> np.ndarray:
        g, k, history = p.gradient, p.kernels, p.state["history"]
        square, root = k.scratch(g), k.scratch(g, 1)
        k.powx(g, F(2), square)
        k.axpy(p.h.momentum, square, history)
        k.powx(history, F(0.5), root)
        of_square, of_history, of_gradient = p.norms(square, history, g)
        k.scal(p.rate / (of_square + of_history), root)
        k.powx(root, F(2), square)
        (of_result,) = p.norms(square)
        return square / (of_result + of_gradient)


class NormedOnce(UpdateRule):
    """The norm of one array that nobody changes, and numbers with which scalars are doubles."""

    def update(self, p: Any) -> np.ndarray:
        (norm,) = p.norms(p.data)
        rate = p.rate
        rate *= np.where(norm > 0.1, 1, p.decay)
        step = rate / (1 + 0.7 * np.sqrt(norm)) * p.gradient - p.data * p.decay / 3
        return np.clip(p.rate - 0.2, -0.1, p.decay) * np.where(norm > 2, step, p.data)


class NumpyNormed(UpdateRule):
    """What p.norms is for, in NumPy's own words."""

    def update(self, p: Any) -> np.ndarray:
        return p.rate * p.gradient / np.linalg.norm(p.gradient)


RULES = (Signum, Everything, Phased, Kerneled, Normed, NormedPowers, NormedOnce)


def updater(rule: UpdateRule, kernels: str, **h: Any) -> Updater:
    rng = np.random.RandomState(3)
    parameters = [
        Parameter(f"ip{n}/0", rng.standard_normal(n).astype(F), np.zeros(n, F), n % 3, 1)
        for n in (1, 7, 3000, 66001)
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


def test_numpys_own_norm_is_not_fused_and_works_all_the_same() -> None:
    fused, plain = updater(NumpyNormed(), "fused"), updater(NumpyNormed(), "native")
    assert trained(fused) == trained(plain)
    (reason,) = fused.kernels.unfused.values()
    assert reason == "it calls np.linalg.norm; p.norms(...) can be fused"


def programs(rule: UpdateRule, **h: Any) -> Any:
    one = np.ones(2, F)
    return trace(rule, HyperParameters(**{**H, **h}), one, one, 0).programs


def test_the_program_is_the_equation() -> None:
    (program,) = programs(Signum())
    assert program.operations == (
        ("subtract", ("g", "s0")),
        ("multiply", ("c0", "v0")),
        ("add", ("s0", "v1")),
        ("sign", ("v2",)),
        ("multiply", ("c1", "v3")),
    )
    assert program.state == ("v2",) and program.update == "v4"


def test_a_program_for_norms_changes_nothing() -> None:
    *before, last = programs(Normed())
    assert [program.norms for program in before] == [("w", "g", "s1"), ("v1", "v2"), ("v7",)]
    assert [program.state for program in before] == [("s0", "s1")] * 3
    for program in before:
        assert program.operations == last.operations[: len(program.operations)]
        assert program.update == ""


def test_what_a_program_for_norms_may_leave_is_not_computed_again() -> None:
    assert keeping(programs(LARS())) == ()  # the state depends on the norms
    first, last = keeping(programs(Lamb()))
    assert first.state == ("v2", "v6") and first.update in first.norms
    assert last.operations == (("multiply", (last.operations[0].operands[0], "g")),)
    assert last.state == ("s0", "s1") and last.update == "v0"


class KeepsState(UpdateRule):
    """One slot is done before the norms, the other needs them."""

    slots = ("early", "late")

    def update(self, p: Any) -> np.ndarray:
        early, late = p.state["early"], p.state["late"]
        early *= p.h.momentum
        early += p.gradient
        step = early + p.decay * p.data
        (norm,) = p.norms(step)
        late += step / norm
        return p.rate * (late + early)


class NeedsGradient(KeepsState):
    """As this, but for what is needed after the norms."""

    def update(self, p: Any) -> np.ndarray:
        return super().update(p) + p.gradient


class NeedsOldState(KeepsState):
    def update(self, p: Any) -> np.ndarray:
        old = p.state["early"].copy()
        return super().update(p) + old


@pytest.mark.parametrize("rule", [KeepsState, NeedsGradient, NeedsOldState])
def test_what_is_needed_after_the_norms_is_not_lost(rule: Any, monkeypatch: Any) -> None:
    assert bool(keeping(programs(rule()))) == (rule is KeepsState)
    monkeypatch.setattr("caffe_pysgd.update.fusing.is_own", lambda rule: True)  # only these keep
    monkeypatch.setattr("caffe_pysgd.update.self_check.is_own", lambda rule: True)
    fused, plain = updater(rule(), "fused"), updater(rule(), "native")
    assert trained(fused) == trained(plain)
    assert fused.kernels.unfused == {}


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


def fill_and_take_its_norm(rule: Any, p: Any) -> Any:
    p.state["history"].fill(0)
    return p.gradient * p.norms(p.state["history"])[0]


def branch_on_a_norm(rule: Any, p: Any) -> Any:
    (norm,) = p.norms(p.gradient)
    return p.gradient / norm if norm > 0 else p.gradient


REASONS = {
    "it takes the norm of a scalar": fill_and_take_its_norm,
    "it branches on what parameters may differ in": branch_on_a_norm,
    "it calls np.exp": lambda rule, p: np.exp(p.gradient),
    "it calls np.sum": lambda rule, p: p.gradient / np.sum(p.gradient),
    "it asks for an array's mean": lambda rule, p: p.gradient - p.gradient.mean(),
    "it branches on values": lambda rule, p: p.gradient if p.gradient > 0 else p.data,
    "it picks single values": lambda rule, p: p.gradient[1:],
    "it brings an array of its own": lambda rule, p: p.gradient * np.ones(3, F),
    "it calls np.dot": lambda rule, p: p.gradient / np.dot(p.gradient, p.gradient),
    "it takes a power": lambda rule, p: p.gradient**3,
    "it calls np.power": lambda rule, p: p.gradient * p.rate**2,
    f"it calls np.{np.max.__name__}": lambda rule, p: p.gradient * np.max(p.rate),
    "it calls np.add": lambda rule, p: p.gradient * p.rate.sum(),
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


def test_what_cannot_be_compiled_later_on_is_no_obstacle(monkeypatch: Any) -> None:
    fused, plain = updater(Phased(), "fused"), updater(Phased(), "native")
    fused.prepare()

    def load(variant: Any) -> Any:
        raise MemoryError("no room for code")

    monkeypatch.setattr(machine, "load", load)
    assert trained(fused) == trained(plain)
    (reason,) = fused.kernels.unfused.values()
    assert reason == "its pass cannot be compiled: MemoryError: no room for code"


class Looking(UpdateRule):
    """Looks at the rates in a way that no symbol sees."""

    def update(self, p: Any) -> np.ndarray:
        high = np.asarray(p.rate).max() > 0.3 * p.h.base_lr
        return p.rate * (np.sign(p.gradient) if high else p.gradient)


def test_a_rule_that_looks_at_the_rates_is_traced_whenever_they_change() -> None:
    h = {"lr_policy": "exp", "gamma": 0.5}
    plain, fused = updater(Looking(), "native", **h), updater(Looking(), "fused", **h)
    assert trained(plain) == trained(fused)
    assert fused.kernels.unfused == {}


class Inverse(UpdateRule):
    def update(self, p: Any) -> np.ndarray:
        return p.rate / p.gradient


class Root(Inverse):
    """In blocks, for its powers."""

    def update(self, p: Any) -> np.ndarray:
        root = p.kernels.scratch(p.gradient)
        p.kernels.powx(p.gradient, F(0.5), root)
        return root


@pytest.mark.parametrize("clears_diffs", [False, True])
@pytest.mark.parametrize(
    "rule, bad, first",
    [
        (Inverse, 0, "inf from gradient 0.0"),
        (Inverse, -0.0, "-inf from gradient -0.0"),
        (Root, -2, "nan from gradient -1.0"),
    ],
)
def test_an_update_that_is_not_finite_is_refused_in_the_same_words(
    rule: Any, bad: float, first: str, clears_diffs: bool
) -> None:
    for kernels in ("native", "fused"):
        some = updater(rule(), kernels, weight_decay=0, iter_size=2)
        some.clears_diffs = clears_diffs
        for parameter in some.parameters:
            parameter.diff[...] = 1
        some.parameters[3].diff[[CHUNK - 3, CHUNK + 2]] = bad
        with pytest.raises(UserError) as refusal:
            some.step(0)
        assert some.kernels.unfused == {}
        assert str(refusal.value).endswith(
            "parameter ip66001/0, iteration 0: update() returned 2 values that are not finite, the "
            f"first at index {CHUNK - 3}: {first}"
        )


def test_the_first_that_is_not_finite_may_be_one_that_is_computed_by_itself() -> None:
    for kernels in ("native", "fused"):
        some = updater(Root(), kernels, weight_decay=0)
        for parameter in some.parameters:
            parameter.diff[...] = 1
        some.parameters[3].diff[[3, 9]] = -2, np.inf
        with pytest.raises(UserError, match=r"2 values .* index 3: nan from gradient -2\.0"):
            some.step(0)
        assert some.kernels.unfused == {}
