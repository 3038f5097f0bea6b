"""The fused kernels beyond the conformance suite: figures, the probe, other processors."""

from __future__ import annotations

import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers.observers import Arrays, Figures

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import (
    NATIVE_NAMES,
    RULES,
    HyperParameters,
    Parameter,
    Statistics,
    Updater,
    UpdateRule,
    make_kernels,
    self_check,
)
from caffe_pysgd.update.bits import other_bits
from caffe_pysgd.update.fused import FusedKernels, machine, probe, update
from caffe_pysgd.update.kernels import CaffeKernels, NumpyKernels
from caffe_pysgd.update.statistics import CHUNK, norm

F = np.float32
LIBRARY = pycaffe.library_path()
WITHOUT_MOMENTUM = ("adagrad", "rmsprop")
# Beyond a chunk, beyond what one thread takes, a block and more, less than a vector.
COUNTS = (3 * CHUNK + 777, 1025, 7, 1)


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: Any) -> None:
    monkeypatch.setattr(update, "thread_count", lambda: 2)
    monkeypatch.setattr(update, "_WORTH_A_THREAD", CHUNK)


@pytest.mark.parametrize("rule", ["adam", "lars"])
def test_a_thread_that_never_comes_leaves_its_chunks_to_the_others(
    rule: str, monkeypatch: Any
) -> None:
    alone, helped = updater("fused", rule), updater("fused", rule)
    for some in (alone, helped):
        fill(some, 0)
    helped.step(0)
    held, busy = threading.Event(), ThreadPoolExecutor(1)
    busy.submit(held.wait)
    with monkeypatch.context() as patch:
        patch.setattr(update, "_pool", lambda: busy)
        alone.step(0)
    held.set()
    busy.shutdown()
    assert_same(alone, helped)


class Exponential(UpdateRule):
    def update(self, p: Any) -> np.ndarray:
        return p.rate * np.exp(-np.abs(p.gradient))


def updater(
    kernels: str, rule: str, observers: Any = (), counts: Any = COUNTS, **more: Any
) -> Updater:
    rng = np.random.RandomState(5)
    exact = more.pop("exact", True)
    clears = more.pop("clears_diffs", False)
    own = more.pop("own", {})
    given = dict(base_lr=0.01, weight_decay=0.02, delta=1e-6)
    given.update(momentum=0 if rule in WITHOUT_MOMENTUM else 0.9, **more)
    h = HyperParameters(**given)
    parameters = [
        Parameter(f"ip{i}/0", rng.standard_normal(n).astype(F), np.zeros(n, F), i % 3, i % 2)
        for i, n in enumerate(counts, 1)
    ]
    for number, fields in own.items():
        for name, value in fields.items():
            setattr(parameters[number], name, value)
    return Updater(
        parameters, h, RULES[rule](), make_kernels(kernels, LIBRARY, exact),
        observers=observers, clears_diffs=clears,
    )  # fmt: skip


def fill(some: Updater, iteration: int) -> None:
    rng = np.random.RandomState(iteration)
    for p in some.parameters:
        p.diff[...] = rng.standard_normal(p.count) * 10.0 ** rng.uniform(-6, 1)
        p.diff[rng.uniform(size=p.count) < 0.1] = 0


def assert_same(one: Updater, other: Updater) -> None:
    for p, q, s, t in zip(one.parameters, other.parameters, one.states, other.states):
        assert p.data.tobytes() == q.data.tobytes(), p.name
        assert p.diff.tobytes() == q.diff.tobytes(), p.name
        for slot in s:
            assert s[slot].tobytes() == t[slot].tobytes(), (p.name, slot)


OPTIONS = {
    "plain": {},
    "all": {"clip_gradients": 3, "iter_size": 3, "regularization_type": "L1"},
    "clip to a value": {"clip_gradients": 0.01, "clip_type": "value", "iter_size": 2},
    "cleared": {"clears_diffs": True},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("rule", RULES)
def test_bits_and_figures_are_those_of_one_operation_after_the_other(
    rule: str, option: str
) -> None:
    # Rules beyond Caffe are NumPy's, whose rounding the native kernels share.
    fused, native = (updater(k, rule, [Figures()], **OPTIONS[option]) for k in ("fused", "native"))
    silent = updater("fused", rule, **OPTIONS[option])
    for iteration in range(4):
        for some in (fused, native, silent):
            fill(some, iteration)
            some.step(iteration)
        assert_same(fused, native)
        assert_same(silent, native)
    assert fused.clipping == native.clipping
    heard, expected = fused.observers[0].heard, native.observers[0].heard  # type: ignore[attr-defined]
    assert heard == expected and len(heard) == 4 * len(COUNTS)
    assert fused.kernels.unfused == {}


def test_figures_tell_what_is_not_finite() -> None:
    fused, native = (updater(k, "sgd", [Figures()]) for k in ("fused", "native"))
    for some in (fused, native):
        fill(some, 0)
        some.parameters[0].diff[[0, 70000, 70001]] = np.nan, np.inf, -np.inf
        some.parameters[3].diff[0] = np.nan
        some.step(0)
    heard = fused.observers[0].heard  # type: ignore[attr-defined]
    assert heard == native.observers[0].heard  # type: ignore[attr-defined]
    assert heard[0][2]["gradient"].nonfinite == 3
    assert heard[3][2]["gradient"] == Statistics(0.0, 0.0, 0.0, 0.0, 0, 1)


@pytest.mark.parametrize("rule", ["adam", "lars", "lamb"])
@pytest.mark.parametrize("figures", [False, True])
def test_the_bits_do_not_depend_on_threads(rule: str, figures: bool, monkeypatch: Any) -> None:
    two = updater("fused", rule, [Figures()] if figures else [])
    two.prepare()
    monkeypatch.setattr(update, "thread_count", lambda: 1)
    one = updater("fused", rule, [Figures()] if figures else [])
    for iteration in range(3):
        for some in (one, two):
            fill(some, iteration)
            some.step(iteration)
        assert_same(one, two)
    if figures:
        assert one.observers[0].heard == two.observers[0].heard  # type: ignore[attr-defined]


SPECIAL = [0, -0.0, 2.0**-149, 2.0**-75, -1, 2.0**64, np.finfo(F).max, -np.inf, np.nan]


@pytest.mark.parametrize("rule", ["lars", "lamb"])
def test_norms_of_special_values_are_the_same(rule: str) -> None:
    pairs = [(x, d) for x in SPECIAL for d in SPECIAL]
    fused, native = (updater(k, rule, counts=[3] * len(pairs)) for k in ("fused", "native"))
    for iteration in range(2):
        for some in (fused, native):
            for p, (x, d) in zip(some.parameters, pairs):
                p.data[0], p.diff[...] = x, (d, 1, 0)
            some.step(iteration)
        for p, q in zip(fused.parameters, native.parameters):
            arrays = zip((p.data, p.diff, *p.state.values()), (q.data, q.diff, *q.state.values()))
            assert not any(other_bits(a, b).any() for a, b in arrays), p.name


@pytest.mark.parametrize("rule", ["sgd", "lars", "lamb"])
def test_parameters_may_have_rules_and_freezes_of_their_own(rule: str) -> None:
    own = {
        1: {"rule": Exponential()},  # which cannot be fused
        2: {"rule": RULES["adam"](), "freeze_until": 2},
        3: {"freeze_from": 1},
    }
    both = [updater(k, rule, [Figures()], own=own) for k in ("fused", "native")]
    for iteration in range(4):
        for some in both:
            fill(some, iteration)
            some.step(iteration)
        assert_same(*both)
    assert both[0].observers[0].heard == both[1].observers[0].heard  # type: ignore[attr-defined]


def test_an_observer_of_arrays_gets_them() -> None:
    observer = Arrays()
    fused, native = updater("fused", "adam", [observer]), updater("native", "adam")
    for some in (fused, native):
        fill(some, 0)
        some.step(0)
    assert_same(fused, native)
    assert len(observer.heard) == 6 * len(COUNTS)


def put_another(p: Parameter, how: str) -> None:
    """Give a parameter another array, or another lr_mult."""
    if how in ("data", "diff"):
        setattr(p, how, getattr(p, how).copy())
    elif how == "lr_mult":
        p.lr_mult += 0.5
    elif how == "the state":
        p.state = {slot: array.copy() for slot, array in p.state.items()}
    elif how == "a slot":
        p.state["m"] = p.state["m"].copy()
    elif how == "a slot, by update":
        p.state.update(m=p.state["m"].copy())
    else:
        p.state |= {"m": p.state["m"].copy()}


@pytest.mark.parametrize(
    "how",
    ["data", "diff", "lr_mult", "the state", "a slot", "a slot, by update", "a slot, by |="],
)
def test_what_became_another_is_found(how: str) -> None:
    fused, native = updater("fused", "adam"), updater("native", "adam")
    for iteration in range(3):
        for some in (fused, native):
            for p in some.parameters:
                put_another(p, how)
            fill(some, iteration)
            some.step(iteration)
        assert_same(fused, native)


def test_a_rate_of_minus_zero_is_another_than_zero() -> None:
    policy = dict(lr_policy="table", lr_table=((0, 0.0), (2, -0.0), (4, 0.0)))
    fused, native = (updater(kernels, "lion", **policy) for kernels in ("fused", "numpy"))
    signs = set()
    for iteration in range(5):
        for some in (fused, native):
            fill(some, iteration)
            some.step(iteration)
        assert_same(fused, native)
        signs.add(bool(np.signbit(fused.parameters[0].rate)))
    assert signs == {True, False}


@pytest.mark.parametrize("rule", ["adagrad", "rmsprop", "adadelta", "adam"])
def test_not_exact_is_within_a_few_ulp_and_not_the_same(rule: str) -> None:
    options = {"weight_decay": 0}  # or the weights' difference would be all that is left of some
    fast, exact = updater("fused", rule, exact=False, **options), updater("fused", rule, **options)
    assert not fast.kernels.exact and exact.kernels.exact
    for iteration in range(2):
        for some in (fast, exact):
            fill(some, iteration)
            some.step(iteration)
    differ = 0
    for p, q in zip(fast.parameters, exact.parameters):
        np.testing.assert_array_max_ulp(p.diff, q.diff, maxulp=8)
        differ += int((p.diff != q.diff).sum())
    assert 0 < differ < 0.01 * sum(COUNTS)


# -- the probe ------------------------------------------------------------------------------------


class Rounding(CaffeKernels):
    """Caffe's kernels, with an axpy that rounds as it is told."""

    def __init__(self, tail: str) -> None:
        super().__init__(LIBRARY)
        self.tail = tail

    def axpy(self, a: Any, x: np.ndarray, y: np.ndarray) -> None:
        main = {"twice": 0, "mixed": y.size - y.size % 32, "once": y.size}[self.tail]
        y[main:] += a * x[main:]
        if main:
            super().axpy(a, x[:main], y[:main])


@pytest.mark.parametrize("tail", ["once", "twice", "mixed"])
def test_the_probe_tells_which_way_axpy_rounds(tail: str, monkeypatch: Any) -> None:
    if not probe.rounds_once(LIBRARY):
        pytest.skip("this BLAS rounds twice, so that there is nothing to tell apart")
    monkeypatch.setattr(probe, "CaffeKernels", lambda path: Rounding(tail))
    find = probe.rounds_once.__wrapped__
    if tail == "mixed":
        with pytest.raises(probe.UnmatchedRounding, match="neither once nor twice"):
            find(LIBRARY)
    else:
        assert find(LIBRARY) == (tail == "once")


def test_auto_falls_back_where_no_pass_matches(monkeypatch: Any) -> None:
    assert make_kernels("auto", LIBRARY).name == "fused"
    monkeypatch.setattr(
        "caffe_pysgd.update.fused.rounds_once",
        lambda path: (_ for _ in ()).throw(probe.UnmatchedRounding("no")),
    )
    assert make_kernels("auto", LIBRARY).name == "native"
    assert make_kernels("auto", None).name == "numpy"


def test_a_pass_that_cannot_be_compiled_gives_way_to_native(monkeypatch: Any) -> None:
    def load(variant: Any) -> Any:
        raise RuntimeError("LLVM IR parsing error")

    fused, native = updater("fused", "adam"), updater("native", "adam")
    with monkeypatch.context() as patch:
        patch.setattr(machine, "load", load)
        fused.prepare()
    assert fused.kernels.unfused == {
        "adam": "its pass cannot be compiled: RuntimeError: LLVM IR parsing error"
    }
    for some in (fused, native):
        fill(some, 0)
        some.step(0)
    assert_same(fused, native)


def test_an_update_that_clips_nothing_takes_the_pass_that_was_checked(monkeypatch: Any) -> None:
    loaded, load = [], machine.load
    monkeypatch.setattr(self_check, "_FOUND", {})
    monkeypatch.setattr(machine, "load", lambda variant: loaded.append(variant) or load(variant))
    fused = updater("fused", "sgd", clip_gradients=1e9)
    fill(fused, 0)
    fused.step(0)
    assert fused.clipping is None
    assert {variant.scaled for variant in loaded} == {True}


def test_a_pass_with_other_bits_gives_way_to_native(monkeypatch: Any) -> None:
    load = machine.load

    def inexact(variant: Any) -> Any:
        return load(variant._replace(rounds_once=not variant.rounds_once))

    monkeypatch.setattr(self_check, "_FOUND", {})
    fused, native = updater("fused", "nesterov"), updater("native", "nesterov")
    with monkeypatch.context() as patch:
        patch.setattr(machine, "load", inexact)
        fused.prepare()
    assert "fails the self-check: " in fused.kernels.unfused["nesterov"]
    for some in (fused, native):
        fill(some, 0)
        some.step(0)
    assert_same(fused, native)


def test_a_pass_whose_norms_are_others_gives_way_to_native(monkeypatch: Any) -> None:
    another = lambda array: norm(array) + F(0.001)  # noqa: E731
    monkeypatch.setattr("caffe_pysgd.update.parameter.norm", another)
    monkeypatch.setattr(self_check, "_FOUND", {})
    fused = updater("fused", "lars")
    fused.prepare()
    assert "fails the self-check: " in fused.kernels.unfused["lars"]


def test_the_passes_that_round_twice_are_those_of_numpy(monkeypatch: Any) -> None:
    """No BLAS here rounds twice; NumPy does."""
    monkeypatch.setattr("caffe_pysgd.update.fusing.first_difference", lambda *_: "")
    fused, plain = updater("fused", "sgd"), updater("numpy", "sgd")
    assert isinstance(fused.kernels, FusedKernels)
    fused.kernels.rounds_once = False
    for iteration in range(3):
        for some in (fused, plain):
            fill(some, iteration)
            some.step(iteration)
        assert_same(fused, plain)


# -- other processors, and an LLVM that does not work ---------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of that kind")
@pytest.mark.parametrize("name, needed", [("x86-64", "sse2"), ("haswell", "avx2")])
@pytest.mark.parametrize("rule", [*sorted(NATIVE_NAMES), "amsgrad", "lamb"])
def test_shorter_vectors_have_the_same_bits(
    name: str, needed: str, rule: str, monkeypatch: Any
) -> None:
    _, features = machine.processor()
    if not features[needed]:
        pytest.skip(f"this processor has no {needed}")
    has_fma = name == "haswell"
    monkeypatch.setattr(machine, "processor", lambda: (name, {"fma": has_fma}))
    monkeypatch.setattr(machine, "load", machine.load.__wrapped__)
    monkeypatch.setattr(self_check, "_FOUND", {})
    fused, native = (updater(k, rule, [Figures()]) for k in ("fused", "native"))
    if not has_fma:  # as a BLAS would on such a processor
        monkeypatch.setattr(fused.kernels, "rounds_once", False)
        for some in (fused, native):
            monkeypatch.setattr(some.kernels, "axpy", Rounding("twice").axpy)
            monkeypatch.setattr(some.kernels, "axpby", partial(NumpyKernels.axpby, some.kernels))
    for iteration in range(3):
        for some in (fused, native):
            fill(some, iteration)
            some.step(iteration)
        assert_same(fused, native)
    assert fused.observers[0].heard == native.observers[0].heard  # type: ignore[attr-defined]
    assert fused.kernels.unfused == {}


@pytest.mark.parametrize(
    "error", [OSError("libstdc++ is\ntoo old"), AttributeError("create_mcjit_compiler")]
)
def test_an_llvm_that_does_not_work_gives_way_to_native(error: Any, monkeypatch: Any) -> None:
    def processor() -> Any:
        raise error

    monkeypatch.setattr(machine, "processor", processor)
    kernels = make_kernels("auto", LIBRARY)
    assert kernels.name == "native"
    expected = " ".join(f"llvmlite does not work here: {type(error).__name__}: {error}".split())
    assert kernels.unfused == {"rules": f"kernels: fused: {expected}"}
    with pytest.raises(UserError, match="llvmlite does not work here"):
        make_kernels("fused", LIBRARY)
