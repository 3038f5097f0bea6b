"""The update against ``solver.apply_update()``: rules x options x magnitudes, 0 ulp.

The heart of the project. First one table of what matters, then solver files drawn at random from
the legal ones.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Dict

import pytest
from helpers.conformance import MAGNITUDES, ODD_LENGTHS, assert_conforming
from helpers.nets import RULES_OF_CAFFE, write_solver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_pysgd.update import NATIVE_RULES

OPTIONS: Dict[str, Dict[str, Any]] = {
    "plain": {"momentum": 0, "weight_decay": 0},
    "momentum": {"momentum": 0.9, "weight_decay": 0},
    "L2": {"weight_decay": 0.0005},
    "L1": {"weight_decay": 0.0005, "regularization_type": "L1"},
    "clip": {"clip_gradients": 5},
    "clip to nothing": {"clip_gradients": 0},
    "clip never": {"clip_gradients": 1e30},
    "iter_size": {"iter_size": 3},
    "all": {
        "momentum": 0.95,
        "weight_decay": 0.004,
        "regularization_type": "L1",
        "clip_gradients": 2.5,
        "iter_size": 7,
        "lr_policy": "inv",
        "gamma": 0.01,
        "power": 0.75,
    },
}


KERNELS = ("native", "fused")


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("rule", NATIVE_RULES)
def test_updates_have_the_bits_of_the_native_solver(
    workdir: Path, rule: str, option: str, magnitude: str, kernels: str
) -> None:
    fields = {**OPTIONS[option], "type": rule, **RULES_OF_CAFFE[rule]}
    path = write_solver(workdir, ODD_LENGTHS, **fields)
    assert_conforming(path, magnitude, iterations=60, kernels=kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("rule", NATIVE_RULES)
def test_the_bits_are_still_the_same_after_hundreds_of_updates(
    workdir: Path, rule: str, kernels: str
) -> None:
    fields = {"clip_gradients": 20, "iter_size": 2, "type": rule, **RULES_OF_CAFFE[rule]}
    path = write_solver(workdir, ODD_LENGTHS, **fields)
    assert_conforming(path, "mixed", iterations=600, kernels=kernels)


def real(low: float, high: float) -> st.SearchStrategy[float]:
    """Draw a float32, now and then one of the ends."""
    return st.floats(low, high, width=32, allow_subnormal=False) | st.sampled_from([low, high])


POLICIES = st.one_of(
    st.just({"lr_policy": "fixed"}),
    st.fixed_dictionaries(
        {"lr_policy": st.just("step"), "gamma": real(0, 2), "stepsize": st.integers(1, 9)}
    ),
    st.fixed_dictionaries({"lr_policy": st.just("exp"), "gamma": real(0, 2)}),
    st.fixed_dictionaries({"lr_policy": st.just("inv"), "gamma": real(0, 2), "power": real(-2, 2)}),
    st.fixed_dictionaries(
        {
            "lr_policy": st.just("multistep"),
            "gamma": real(0, 2),
            "stepvalue": st.lists(st.integers(0, 20), max_size=5),
        }
    ),
    st.fixed_dictionaries({"lr_policy": st.just("poly"), "power": real(-2, 2)}),
    st.fixed_dictionaries(
        {"lr_policy": st.just("sigmoid"), "gamma": real(0, 2), "stepsize": st.integers(1, 30)}
    ),
)

RULES = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["SGD", "Nesterov"]), "momentum": real(-1, 1)}),
    st.fixed_dictionaries(
        {"type": st.just("AdaGrad"), "momentum": st.just(0), "delta": real(0, 1)}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("RMSProp"),
            "momentum": st.just(0),
            "rms_decay": real(0, 0.984375),
            "delta": real(0, 1),
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("AdaDelta"), "momentum": real(0, 1), "delta": real(0, 1)}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("Adam"),
            "momentum": real(0, 1),
            "momentum2": real(0, 1),
            "delta": real(0, 1),
        }
    ),
)

SOLVERS = st.builds(
    lambda rule, policy, common: {**common, **policy, **rule},
    RULES,
    POLICIES,
    st.fixed_dictionaries(
        {
            "base_lr": real(0, 10),
            "weight_decay": real(0, 1) | st.just(0),
            "regularization_type": st.sampled_from(["L1", "L2"]),
            "clip_gradients": st.just(-1) | real(0, 100),
            "iter_size": st.integers(1, 9),
        }
    ),
)


@settings(
    max_examples=int(os.environ.get("CONFORMANCE_EXAMPLES", 150)),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(SOLVERS, st.sampled_from(MAGNITUDES), st.integers(0, 2**31), st.sampled_from(KERNELS))
def test_any_legal_solver_file_gives_the_bits_of_the_native_solver(
    fields: Dict[str, Any], magnitude: str, seed: int, kernels: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write_solver(Path(directory), ODD_LENGTHS, **fields)
        assert_conforming(path, magnitude, iterations=12, kernels=kernels, seed=seed)
