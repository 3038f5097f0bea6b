"""Parameters with rules, hyper-parameters and iterations of their own."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import numpy as np
import pytest
from helpers.failures import refusal
from helpers.observers import Arrays

from caffe_pysgd import UpdateRule
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import (
    RULES,
    HyperParameters,
    Parameter,
    Stage,
    Updater,
    make_kernels,
)

H = HyperParameters(base_lr=0.1, momentum=0.9, weight_decay=0.01)


def parameters(count: int = 2) -> List[Parameter]:
    rng = np.random.RandomState(0)
    return [
        Parameter(f"ip{n}/0", *rng.standard_normal((2, 5)).astype(np.float32)) for n in range(count)
    ]


def alone(parameter: Parameter, rule: str, h: HyperParameters) -> Updater:
    copy = Parameter(parameter.name, parameter.data.copy(), parameter.diff.copy())
    return Updater([copy], h, RULES[rule](), make_kernels("numpy", None))


def test_each_parameter_is_updated_as_if_it_were_alone() -> None:
    other = HyperParameters(base_lr=0.3, lr_policy="step", gamma=0.5, stepsize=2, momentum2=0.9)
    both = parameters()
    both[1].rule, both[1].h = RULES["adam"](), other
    updater = Updater(both, H, RULES["sgd"](), make_kernels("numpy", None))
    expected = [alone(both[0], "sgd", H), alone(both[1], "adam", other)]
    for iteration in range(6):
        gradients = np.random.RandomState(iteration).standard_normal((2, 5)).astype(np.float32)
        for parameter, single, gradient in zip(both, expected, gradients):
            parameter.diff[...] = single.parameters[0].diff[...] = gradient
            single.step(iteration)
        updater.step(iteration)
        for parameter, single in zip(both, expected):
            assert parameter.data.tobytes() == single.parameters[0].data.tobytes()
    assert [set(state) for state in updater.states] == [{"history"}, {"m", "v"}]


@pytest.mark.parametrize("until, since, moved", [(2, None, [2, 3, 4]), (0, 3, [0, 1, 2])])
def test_a_frozen_parameter_and_its_history_stay_as_they_are(
    until: int, since: Any, moved: List[int]
) -> None:
    (parameter,) = parameters(1)
    parameter.freeze_until, parameter.freeze_from = until, since
    updater = Updater([parameter], H, RULES["sgd"](), make_kernels("numpy", None))
    seen = []
    for iteration in range(5):
        data, history = parameter.data.copy(), updater.states[0]["history"].copy()
        parameter.diff.fill(1)
        updater.step(iteration)
        now = parameter.data, updater.states[0]["history"]
        same = [array.tobytes() for array in now] == [data.tobytes(), history.tobytes()]
        if not same:
            seen.append(iteration)
    assert seen == moved


class Returns(UpdateRule):
    """A rule that returns what it was told to."""

    def __init__(self, value: Callable[[Any], Any]) -> None:
        self.value = value

    def update(self, p: Any) -> Any:
        return self.value(p)


@pytest.mark.parametrize(
    "value, complaint",
    [
        (lambda p: None, "update() returned NoneType; expected an array of float32"),
        (lambda p: p.gradient.astype(float), "returned an array of float64; expected float32"),
        (lambda p: p.gradient[:3], "returned shape (3,); expected (5,)"),
        (
            lambda p: p.gradient / np.float32(0),
            "returned 5 values that are not finite, the first at index 0: inf from gradient",
        ),
    ],
)
def test_what_is_no_update_value_is_refused_by_name(
    value: Callable[[Any], Any], complaint: str
) -> None:
    (parameter,) = parameters(1)
    parameter.diff[...] = 2
    updater = Updater([parameter], H, Returns(value), make_kernels("numpy", None))
    said = refusal(updater.step, 17)
    assert said.startswith("rule test_treatments:Returns, parameter ip0/0, iteration 17")
    assert complaint in said


LAYOUTS: Dict[str, Callable[[Any], Any]] = {
    "every other": lambda p: np.repeat(p.gradient, 2)[::2],
    "reversed": lambda p: np.ascontiguousarray(p.gradient[::-1])[::-1],
    "one for all": lambda p: np.broadcast_to(p.rate, p.gradient.shape),
    "real parts": lambda p: p.gradient.astype(np.complex64).real,
}


@pytest.mark.parametrize("kernels", ["numpy", "native"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_update_value_may_lie_in_memory_as_it_likes(layout: str, kernels: str) -> None:
    if kernels == "native":
        pytest.importorskip("caffe")
    (parameter,) = parameters(1)
    h = HyperParameters(base_lr=0.5)
    before, gradient = parameter.data.copy(), parameter.diff.copy()
    made = make_kernels(kernels, pycaffe.library_path() if kernels == "native" else None)
    Updater([parameter], h, Returns(LAYOUTS[layout]), made).step(0)
    subtracted = np.full(5, 0.5, np.float32) if layout == "one for all" else gradient
    assert (parameter.data == before - subtracted).all()


class Doubled(RULES["adamw"]):  # type: ignore[name-defined, misc]
    """A rule of the user's on top of one of ours, and wrong."""

    def update(self, p: Any) -> Any:
        return super().update(p).astype(float)


def test_a_rule_on_top_of_one_of_ours_is_looked_at_too() -> None:
    updater = Updater(parameters(1), H, Doubled(), make_kernels("numpy", None))
    with pytest.raises(UserError, match=r"rule test_treatments:Doubled, .* an array of float64"):
        updater.step(0)


class Rebinds(UpdateRule):
    """A rule that puts new arrays into its slots, which is easily done."""

    slots = ("m",)

    def __init__(self, slot: str = "m") -> None:
        self.slot = slot

    def update(self, p: Any) -> Any:
        p.state[self.slot] = p.state["m"] + p.gradient
        p.state["m"] *= np.float32(0.5)
        return p.rate * p.state["m"]


def test_state_stays_in_its_arrays_however_a_rule_writes_it() -> None:
    """The arrays are the snapshot's; a rule that replaces them must not lose its state."""
    (parameter,) = parameters(1)
    h = HyperParameters(base_lr=0.1)
    updater = Updater([parameter], h, Rebinds(), make_kernels("numpy", None))
    kept, gradient = updater.states[0]["m"], parameter.diff.copy()
    updater.step(0)
    assert updater.states[0]["m"] is kept
    assert (kept == gradient * np.float32(0.5)).all()


def test_a_slot_that_was_not_declared_is_refused() -> None:
    updater = Updater(parameters(1), H, Rebinds("n"), make_kernels("numpy", None))
    with pytest.raises(UserError, match="iteration 0: state: 'n' is not among its slots"):
        updater.step(0)


def test_an_exception_in_a_rule_names_rule_parameter_and_iteration() -> None:
    rule = Returns(lambda p: p.state["momentum"])
    updater = Updater(parameters(1), H, rule, make_kernels("numpy", None))
    with pytest.raises(UserError, match="Returns, parameter ip0/0, iteration 5: KeyError: 'mom"):
        updater.step(5)


class Recorder(Arrays):
    """Keeps all that it hears, at even iterations."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: List[int] = []

    def due(self, iteration: int) -> bool:
        return iteration % 2 == 0

    def end(self, iteration: int, rate: Any) -> None:
        self.ended.append(iteration)


def test_an_observer_hears_every_stage_of_every_parameter_in_order() -> None:
    h = HyperParameters(base_lr=0.5, weight_decay=0.1, iter_size=2, clip_gradients=1)
    both = parameters()
    before, raw = [p.data.copy() for p in both], [p.diff.copy() for p in both]
    recorder = Recorder()
    updater = Updater(both, h, RULES["sgd"](), make_kernels("numpy", None), observers=[recorder])
    updater.step(4)
    stages = [(name, stage) for _, _, name, stage, _ in recorder.heard]
    first = [(p.name, Stage.GRADIENT) for p in both]
    last = (Stage.CLIPPED, Stage.NORMALIZED, Stage.REGULARIZED, Stage.UPDATE, Stage.DATA)
    assert stages == first + [(p.name, stage) for p in both for stage in last]
    arrays = {(name, stage): array for _, _, name, stage, array in recorder.heard}
    norm = np.sqrt(sum(float((g.astype(float) ** 2).sum()) for g in raw))
    for parameter, gradient, data in zip(both, raw, before):
        told = {stage: arrays[parameter.name, stage] for stage in Stage}
        assert (told[Stage.GRADIENT] == gradient).all()
        assert told[Stage.CLIPPED] == pytest.approx(gradient / norm, rel=1e-6)
        assert (told[Stage.NORMALIZED] == told[Stage.CLIPPED] / 2).all()
        assert told[Stage.REGULARIZED] == pytest.approx(told[Stage.NORMALIZED] + 0.1 * data)
        assert (told[Stage.UPDATE] == np.float32(0.5) * told[Stage.REGULARIZED]).all()
        assert (told[Stage.DATA] == data - told[Stage.UPDATE]).all()
    assert updater.clipping and updater.clipping.l2norm_diff == pytest.approx(norm, rel=1e-6)
    assert {iteration for iteration, *_ in recorder.heard} == {4} and recorder.ended == [4]


def test_an_observer_that_is_not_due_hears_nothing() -> None:
    recorder = Recorder()
    updater = Updater(parameters(), H, RULES["sgd"](), make_kernels("numpy", None),
                      observers=[recorder])  # fmt: skip
    updater.step(3)
    assert not recorder.heard and not recorder.ended


@pytest.mark.parametrize(
    "rule, fields, message",
    [
        (
            "adagrad",
            {"momentum": 0.9},
            "momentum: got 0.9; expected 0 .AdaGrad cannot be used with momentum",
        ),
        (
            "rmsprop",
            {"momentum": 0.5},
            "momentum: got 0.5; expected 0 .RMSProp cannot be used with momentum",
        ),
        ("rmsprop", {"rms_decay": 1}, "rms_decay: got 1.0; expected 0 or more and less"),
    ],
)
def test_a_rule_refuses_what_its_solver_aborts_on(rule: str, fields: Any, message: str) -> None:
    h = HyperParameters(base_lr=0.1, **fields)
    with pytest.raises(UserError, match=message):
        Updater(parameters(), h, RULES[rule](), make_kernels("numpy", None))
