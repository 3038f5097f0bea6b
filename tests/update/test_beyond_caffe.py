"""The rules and policies that Caffe never got, against implementations that are not ours.

``references/rules.npz`` holds trajectories of PyTorch and Optax (see ``references/generate.py``).
They round otherwise than we do, so the weights agree to a few units in the last place of the
largest number that entered them, not to the bit; a wrong convention is off by far more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from caffe_pysgd.errors import UserError
from caffe_pysgd.update import RULES, HyperParameters, Parameter, Updater, make_kernels
from caffe_pysgd.update.policies import Schedule

HERE = Path(__file__).parent.parent / "references"
REFERENCES = np.load(HERE / "rules.npz")
NAMES = [name[len("after_") :] for name in REFERENCES.files if name.startswith("after_")]
# The relative difference that 25 steps of float32 rounding leave.
TOLERANCE = 3e-6


def trajectory(rule: str, **changed: Any) -> np.ndarray:
    """Return the weights after every step of our rule, on the reference's gradients."""
    beta1, beta2, epsilon, decay, trust = REFERENCES["settings"]
    settings = dict(
        momentum=beta1, momentum2=beta2, delta=epsilon, weight_decay=decay,
        trust_coefficient=trust, lr_policy="table",
        lr_table=tuple(enumerate(REFERENCES["rates"].tolist())),
    )  # fmt: skip
    h = HyperParameters(**{**settings, **changed})
    parameter = Parameter("w/0", REFERENCES["start"].copy(), np.zeros_like(REFERENCES["start"]))
    updater = Updater([parameter], h, RULES[rule](), make_kernels("numpy", None))
    after = []
    for iteration, gradient in enumerate(REFERENCES["gradients"]):
        parameter.diff[...] = gradient
        updater.step(iteration)
        after.append(parameter.data.copy())
    return np.array(after)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("rule", NAMES)
def test_a_rule_follows_its_reference(rule: str) -> None:
    assert distance(trajectory(rule), REFERENCES[f"after_{rule}"]) < TOLERANCE


READS = {
    "momentum": set(NAMES),
    "weight_decay": set(NAMES),
    "momentum2": {"adamw", "amsgrad", "nadam", "adamax", "lamb", "lion"},
    "delta": {"adamw", "amsgrad", "nadam", "lamb"},
    "trust_coefficient": {"lars"},
}


@pytest.mark.parametrize(
    "changed, rule", [(name, rule) for name, rules in READS.items() for rule in sorted(rules)]
)
def test_the_tolerance_tells_a_wrong_setting(changed: str, rule: str) -> None:
    """The test above can fail: one setting 10 % off is far outside of its tolerance."""
    index = ("momentum", "momentum2", "delta", "weight_decay", "trust_coefficient").index(changed)
    wrong = trajectory(rule, **{changed: REFERENCES["settings"][index] * 0.9})
    assert distance(wrong, REFERENCES[f"after_{rule}"]) > TOLERANCE


def test_every_rule_that_caffe_never_got_has_a_reference() -> None:
    native = {"sgd", "nesterov", "adagrad", "rmsprop", "adadelta", "adam"}
    assert set(NAMES) == set(RULES) - native


@pytest.mark.parametrize("rate_inside", ["sgd", "pytorch_sgd"])
def test_caffe_has_the_rate_inside_the_history_and_pytorch_outside(rate_inside: str) -> None:
    """After the rate falls to 0, Caffe's history still moves the weights; PyTorch's does not."""
    h = HyperParameters(momentum=0.5, lr_policy="table", lr_table=((0, 0.1), (1, 0.0)))
    parameter = Parameter("w/0", np.ones(1, np.float32), np.ones(1, np.float32))
    updater = Updater([parameter], h, RULES[rate_inside](), make_kernels("numpy", None))
    updater.step(0)
    before = parameter.data.copy()
    parameter.diff.fill(0)
    updater.step(1)
    assert (parameter.data == before).all() == (rate_inside == "pytorch_sgd")


POLICIES: Dict[str, Dict[str, Any]] = {
    "one_cycle": {"base_lr": 0.5, "max_iter": 40},
    "cosine": {"base_lr": 0.5, "stepsize": 5, "period_mult": 2, "lr_min": 0.01},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_follows_pytorchs(policy: str) -> None:
    schedule = Schedule(HyperParameters(lr_policy=policy, **POLICIES[policy]))
    ours = np.array([schedule.rate(i) for i in range(40)])
    assert np.abs(ours / REFERENCES[policy] - 1).max() < 1e-6


def test_cosine_without_a_stepsize_goes_down_once() -> None:
    schedule = Schedule(HyperParameters(base_lr=2, lr_policy="cosine", max_iter=10))
    rates = [float(schedule.rate(i)) for i in (0, 5, 10, 15)]
    assert rates == [2.0, pytest.approx(1.0), 0.0, 0.0]


def test_warm_up_scales_any_policy_linearly() -> None:
    h = dict(base_lr=1, lr_policy="step", gamma=0.5, stepsize=6)
    plain = Schedule(HyperParameters(**h))
    warm = Schedule(HyperParameters(**h, warmup_iter=8, warmup_start=0.25))
    ratios = [float(warm.rate(i) / plain.rate(i)) for i in range(10)]
    assert ratios == pytest.approx([0.25 + 0.75 * min(i / 8, 1) for i in range(10)])


def test_a_table_gives_the_rate_of_its_last_entry() -> None:
    schedule = Schedule(
        HyperParameters(lr_policy="table", lr_table=((10, 0.1), (0, 1), (12, 0.01)))
    )
    assert [float(schedule.rate(i)) for i in (0, 9, 10, 11, 12, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"lr_policy": "table"}, "lr_table: got .*; expected an entry for iteration 0"),
        ({"lr_policy": "cosine"}, "stepsize: got 0; expected more than 0, or a max_iter"),
        ({"lr_policy": "cosine", "stepsize": 3, "period_mult": 0.5}, "period_mult: got 0.5"),
        ({"lr_policy": "one_cycle"}, "max_iter: got 0; expected 2 or more"),
        ({"lr_policy": "one_cycle", "max_iter": 9, "pct_start": 1}, "pct_start: got 1.0"),
        ({"lr_policy": "one_cycle", "max_iter": 9, "div_factor": 0}, "div_factor: got 0.0"),
        ({"lr_policy": "fixd"}, "lr_policy: got 'fixd'; .*did you mean 'fixed'"),
    ],
)
def test_a_policy_refuses_what_it_cannot_use(fields: Dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Schedule(HyperParameters(base_lr=1, **fields))


@pytest.mark.parametrize("clip_type, limit", [("value", 0.5), ("adjustable", 5.0)])
def test_clipping_by_value_limits_each_element(clip_type: str, limit: float) -> None:
    h = HyperParameters(base_lr=0.1, clip_gradients=0.5, clip_type=clip_type)
    gradient = np.array([-9, -5, -0.5, 0, 0.25, 0.5, 4, 6], np.float32)
    parameter = Parameter("w/0", np.zeros(8, np.float32), gradient.copy())
    updater = Updater([parameter], h, RULES["sgd"](), make_kernels("numpy", None))
    updater.step(0)
    assert parameter.data == pytest.approx(-0.1 * np.clip(gradient, -limit, limit))


@pytest.mark.slow
def test_the_references_are_what_pytorch_and_optax_say_today(tmp_path: Path) -> None:
    """Make the virtual environment, run the generator, and compare with the file."""
    outside = os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not folder.startswith(sys.prefix)
    )
    host_python = shutil.which("python3", path=outside)
    assert host_python, "needs the host's python3: PyTorch and JAX want a newer one than Caffe's"
    subprocess.run([host_python, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0", "optax"], check=True)
    subprocess.run([python, HERE / "generate.py", tmp_path / "rules.npz"], check=True)
    fresh = np.load(tmp_path / "rules.npz")
    for name in NAMES:
        assert distance(fresh[f"after_{name}"], REFERENCES[f"after_{name}"]) < TOLERANCE, name
