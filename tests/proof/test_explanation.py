"""The arithmetic on the board, against what the update really did: every rule, every option."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Tuple

import numpy as np
import pytest

from caffe_pysgd.proof.explain.arithmetic import decimal, fuses, hexadecimal, multiply_add
from caffe_pysgd.proof.explain.explanation import Element, explain
from caffe_pysgd.proof.explain.rate_formulas import rate_of
from caffe_pysgd.proof.explain.weight_watcher import WeightWatcher
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import RULES, HyperParameters, Parameter, Updater, make_kernels, make_rule
from caffe_pysgd.update.policies import POLICIES

F = np.float32

OPTIONS: Dict[str, Dict[str, Any]] = {
    "plain": {},
    "clipped and accumulated": {"clip_gradients": 1.0, "iter_size": 3},
    "never clipped": {"clip_gradients": 1e9},
    "L1, adjustable": {
        "regularization_type": "L1", "clip_gradients": 0.003, "clip_type": "adjustable",
    },
    "by value": {"clip_gradients": 0.5, "clip_type": "value"},
    "no decay, inv": {"weight_decay": 0, "lr_policy": "inv", "gamma": 0.01, "power": 0.75},
}  # fmt: skip

POLICY_SETTINGS: Dict[str, Dict[str, Any]] = {
    "fixed": {},
    "step": {"gamma": 0.5, "stepsize": 7},
    "exp": {"gamma": 0.97},
    "inv": {"gamma": 0.01, "power": 0.75},
    "multistep": {"gamma": 0.5, "stepvalue": (3, 20)},
    "poly": {"power": 0.6},
    "sigmoid": {"gamma": 0.2, "stepsize": 12},
    "table": {"lr_table": ((0, 0.1), (10, 0.02))},
    "cosine": {"stepsize": 10, "period_mult": 2, "lr_min": 0.001},
    "one_cycle": {},
    "plateau": {"gamma": 0.5, "plateau_winsize": (3, 4)},
}


def settings(rule: str, **options: Any) -> HyperParameters:
    momentum = 0 if rule in ("adagrad", "rmsprop") else 0.9
    common = {"base_lr": 0.01, "weight_decay": 0.0005, "trust_coefficient": 0.02, "max_iter": 40}
    return HyperParameters(**{**common, "momentum": momentum, **options})


def trained(
    rule: str, kernels: str, h: HyperParameters, count: int, element: int, until: int = 3
) -> Element:
    """Train two parameters for a few iterations; return one weight's last update."""
    rng = np.random.default_rng(11)
    parameters = [
        Parameter("a/0", rng.normal(size=count).astype(F), np.zeros(count, F), 1, 1),
        Parameter("a/1", rng.normal(size=5).astype(F), np.zeros(5, F), 2, 0.5),
    ]
    updater = Updater(parameters, h, make_rule(rule), make_kernels(kernels, pycaffe.library_path()))
    watcher = WeightWatcher(updater, 0, element, until)
    updater.observers.append(watcher)
    for iteration in range(until + 1):
        for parameter in parameters:
            parameter.diff[:] = rng.normal(size=parameter.count)
        rate = updater.step(iteration)
    return Element(
        parameter="a/0",
        index=(element,),
        element=element,
        count=count,
        iteration=until,
        rule=updater.parameters[0].rule,
        rule_name=rule,
        common=h,
        h=h,
        lr_mult=1,
        decay_mult=1,
        kernels=updater.kernels,
        rate=float(rate),
        local_rate=None,
        clip_factor=updater.clipping and updater.clipping.scale_factor,
        clip_norm=updater.clipping and updater.clipping.l2norm_diff,
        values=watcher.values,
        norms=watcher.norms,
    )


@pytest.mark.parametrize("kernels", ["native", "numpy"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("rule", RULES)
def test_every_line_gives_the_bits_of_the_update(rule: str, options: str, kernels: str) -> None:
    h = settings(rule, **OPTIONS[options])
    for element in (0, 64, 102):  # a BLAS may do the last elements in another way
        element_at = trained(rule, kernels, h, 103, element)
        explanation = explain(element_at)
        assert not explanation.differing, explanation.verdict
        lines = {line.name: line for line in explanation.lines}
        for name in ("clipped", "regularized", "update", "new weight"):
            assert lines[name].recorded
            assert lines[name].computed == element_at.values[name]
        for slot in element_at.rule.slots:
            assert lines[f"new {slot}"].computed == element_at.values[f"new {slot}"]


OWN_RULES = """
import numpy as np
import caffe_pysgd

class Signum(caffe_pysgd.UpdateRule):
    slots = ("momentum",)

    def update(self, p):
        momentum = p.state["momentum"]
        surprise = p.gradient - momentum
        momentum += (1 - p.h.momentum ** (p.iteration + 1)) * surprise
        direction = np.where(np.abs(momentum) > 1e-3, np.sign(momentum), 0 * momentum)
        return p.rate * direction

class Unit(caffe_pysgd.UpdateRule):
    def update(self, p):
        step = np.maximum(p.gradient, -p.data) * p.norms(p.data)[0]
        return p.rate * (step / p.norms(step)[0])

class Scaled(caffe_pysgd.UpdateRule):
    def update(self, p):
        norm, step_norm = p.norms(p.data, p.gradient)
        scale = p.rate
        scale *= np.where(norm > 0.1, 1 + 0.3 * norm, 1)
        return p.rate * 2 * p.gradient / (1 + 0.7 * step_norm) + scale * p.data

class Centred(caffe_pysgd.UpdateRule):
    def update(self, p):
        return p.rate * (p.gradient - p.gradient.mean())
"""


@pytest.mark.parametrize("kernels", ["fused", "numpy"])
def test_a_rule_of_ones_own_is_told_in_the_words_of_its_source(
    kernels: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "explained_rules.py").write_text(OWN_RULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    told = explain(trained("explained_rules:Signum", kernels, settings("sgd"), 103, 64))
    formulas = {line.name: line.formula for line in told.lines}
    assert formulas["surprise"] == "regularized - momentum"
    assert formulas["new momentum"].startswith("momentum + product")
    assert formulas["update"] == "local_rate · direction"
    assert not told.differing and "all 7 values" in told.verdict
    unit = explain(trained("explained_rules:Unit", kernels, settings("sgd"), 103, 64))
    formulas = {line.name: line.formula for line in unit.lines}
    assert formulas["step"] == "greater · weight_norm"
    assert formulas["update"] == "local_rate · quotient"
    assert not unit.differing
    scaled = explain(trained("explained_rules:Scaled", kernels, settings("sgd"), 103, 64))
    assert not scaled.differing
    assert [line.note for line in scaled.lines if line.name.endswith("_norm")] == [
        "L2 norm of all regularized values of the parameter",
        "L2 norm of all weights of the parameter",
    ]
    centred = explain(trained("explained_rules:Centred", kernels, settings("sgd"), 103, 64))
    assert not centred.differing
    assert any(note.endswith("can tell: it asks for an array's mean.") for note in centred.notes)


@pytest.mark.parametrize("rule", RULES)
def test_a_recorded_value_that_does_not_follow_is_found(rule: str) -> None:
    element = trained(rule, "native", settings(rule), 20, 7)
    slots = [f"new {slot}" for slot in element.rule.slots]
    for name in ("clipped", "normalized", "regularized", *slots, "update", "new weight"):
        forged = {**element.values, name: np.nextafter(element.values[name], F(9))}
        explanation = explain(replace(element, values=forged))
        assert explanation.differing[0].name == name
        assert hexadecimal(element.values[name]) in explanation.verdict


def test_another_momentum_than_the_update_had_is_found() -> None:
    element = trained("adam", "native", settings("adam"), 20, 7)
    another = replace(element, h=settings("adam", momentum=0.8))
    assert explain(another).differing[0].name == "new m"


@pytest.mark.parametrize("iteration", [0, 3, 9, 10, 25])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_policys_formula_gives_the_rate(policy: str, iteration: int) -> None:
    warmups: Tuple[Dict[str, Any], ...] = ({}, {"warmup_iter": 5, "warmup_start": 0.1})
    for warmup in warmups:
        options = {"lr_policy": policy, **POLICY_SETTINGS[policy], **warmup}
        h = settings("sgd", **options)
        rate = rate_of(h, iteration)
        assert ("warmup_iter" in rate.formula) == (iteration < h.warmup_iter)
        if policy in ("table", "one_cycle"):
            continue
        # The numbers, computed as they are written, come to the rate, up to rounding.
        python = rate.numbers.replace("·", "*").replace("^-", "**-").replace("^", "**")
        names = {"exp": np.exp, "cos": np.cos, "pi": np.pi}
        assert eval(python, names) == pytest.approx(float(rate.value), rel=1e-5)


def test_both_roundings_are_told_apart() -> None:
    x, y = F(1 + 2.0**-12), F(-(1 + 2.0**-11))
    assert multiply_add(x, x, y) == F(2.0**-24)
    assert F(F(x * x) + y) == 0
    for name in ("native", "numpy"):
        kernels = make_kernels(name, pycaffe.library_path())
        for count in (1, 7, 64, 103):
            for element in {0, count // 2, count - 1}:
                result = np.full(count, y, F)
                kernels.axpy(x, np.full(count, x, F), result)
                assert fuses(kernels, count, element) == (result[element] == F(2.0**-24))


def test_hexadecimal_floats_read_back_to_the_same_bits() -> None:
    for value in (0, -0.0, 1, -0.1, 1e-45, 3.4e38, 0.0009765625):
        assert float.fromhex(hexadecimal(F(value))) == float(F(value))
    assert hexadecimal(F(0.1)) == "0x1.99999ap-4"


def test_decimals_read_back_to_the_same_bits() -> None:
    written = {0.1: "0.1", 1e-4: "0.0001", -8.467218e-05: "-0.00008467218", 3e-7: "3e-7", 5: "5"}
    for value, text in written.items():
        assert decimal(F(value)) == text
    for value in (0, -0.0, 1 / 3, 1e-45, 3.4e38, 16777216, -1e-5, float("inf")):
        assert F(decimal(F(value))) == F(value)
