"""Every learning-rate policy against ``solver.lr``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, Set, Tuple

import caffe
import numpy as np
import pytest
from helpers.nets import write_solver
from hypothesis import given
from hypothesis import strategies as st

from caffe_pysgd.errors import UserError
from caffe_pysgd.run.resolve import hyperparameters
from caffe_pysgd.stock.solver_file import read_solver
from caffe_pysgd.update import HyperParameters
from caffe_pysgd.update.kernels import NumpyKernels
from caffe_pysgd.update.policies import Schedule
from caffe_pysgd.update.policies import caffe as lr_policies
from caffe_pysgd.update.rules.caffe import SGD
from caffe_pysgd.update.updater import Updater

POLICIES: Dict[str, Dict[str, Any]] = {
    "fixed": {},
    "step": {"stepsize": 7, "gamma": 0.97},
    "exp": {"gamma": 0.997},
    "inv": {"gamma": 0.0001, "power": 0.75},
    "multistep": {"gamma": 0.1, "stepvalue": [3, 10, 11, 500]},
    "poly": {"power": 0.9, "max_iter": 900},
    "sigmoid": {"gamma": 0.01, "stepsize": 500},
}
TINY = """
layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip"
        inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "d" top: "loss" }
"""


def test_every_policy_of_caffe_is_here() -> None:
    assert set(POLICIES) == set(lr_policies.POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
def test_rates_have_the_bits_of_the_native_solver(workdir: Path, policy: str) -> None:
    path = write_solver(workdir, TINY, lr_policy=policy, **POLICIES[policy])
    native = caffe.SGDSolver(str(path))
    h = hyperparameters(read_solver(path), {})
    updater = Updater([], h, SGD(), NumpyKernels())
    for iteration in range(1200):
        # solver.lr is itself an evaluation: it advances multistep, as apply_update does again.
        updater.rates.schedule.rate(iteration)
        expected, found = np.float32(native.lr), updater.rates.schedule.rate(iteration)
        updater_bits, native_bits = found.tobytes(), expected.tobytes()
        assert updater_bits == native_bits, f"iteration {iteration}: {float(expected).hex()}"
        native.apply_update()


@pytest.mark.parametrize("start", [0, 4, 100, 501])
def test_multistep_advances_one_step_per_evaluation(start: int) -> None:
    h = HyperParameters(base_lr=1, lr_policy="multistep", gamma=0.5, stepvalue=(3, 10, 11, 500))
    updater = Updater([], h, SGD(), NumpyKernels())
    seen = [(updater.rates.schedule.rate(start + i), updater.current_step)[1] for i in range(6)]
    assert all(0 <= later - earlier <= 1 for earlier, later in zip([0, *seen], seen))
    assert seen[-1] == sum(start + 5 >= value for value in h.stepvalue)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"lr_policy": "cosinus"}, "lr_policy: got 'cosinus'; expected one of fixed, step, exp"),
        (
            {"lr_policy": "step", "gamma": 0.1},
            "stepsize: got 0; expected more than 0 .lr_policy 'step'",
        ),
        (
            {"lr_policy": "sigmoid", "gamma": 0.1},
            "stepsize: got 0; expected more than 0 .lr_policy 'sigmoid'",
        ),
        ({"lr_policy": "exp", "gamma": -0.5}, "gamma: got -0.5; expected 0 or more"),
        ({"lr_policy": "inv", "gamma": -1}, "gamma: got -1.0; expected 0 or more"),
    ],
)
def test_what_caffe_aborts_on_is_refused(fields: Dict[str, Any], message: str) -> None:
    h = HyperParameters(base_lr=0.1, **fields)
    with pytest.raises(UserError, match=message):
        Updater([], h, SGD(), NumpyKernels())


schedules = st.builds(
    HyperParameters,
    base_lr=st.just(1),
    gamma=st.just(0.5),
    max_iter=st.just(30),
    lr_policy=st.sampled_from(["step", "multistep", "exp", "inv", "poly", "sigmoid"]),
    stepsize=st.integers(1, 9),
    stepvalue=st.lists(st.integers(0, 25), max_size=6),
)


@given(h=schedules, start=st.integers(0, 30))
def test_catching_up_is_evaluating_every_iteration_before(h: HyperParameters, start: int) -> None:
    evaluated, caught_up = Schedule(h), Schedule(h)
    for iteration in range(start):
        evaluated.rate(iteration)
    caught_up.catch_up(start)
    for iteration in range(start, 31):
        assert caught_up.current_step == evaluated.current_step
        assert caught_up.rate(iteration).tobytes() == evaluated.rate(iteration).tobytes()


@given(h=schedules, at=st.sets(st.integers(0, 30)))
def test_rates_at_any_iterations_are_those_of_the_whole_run(
    h: HyperParameters, at: Set[int]
) -> None:
    whole, some = Schedule(h), Schedule(h)
    rates = [whole.rate(iteration) for iteration in range(31)]
    for iteration in sorted(at):
        some.catch_up(iteration)
        assert some.rate(iteration).tobytes() == rates[iteration].tobytes()


@pytest.mark.parametrize("stepvalue", [(3, 5), (5, 5), (7, 3), (2, 3, 3), (0, 0)])
def test_catching_up_has_the_rates_of_the_native_solver(
    workdir: Path, stepvalue: Tuple[int, ...]
) -> None:
    settings = {"lr_policy": "multistep", "gamma": 0.1, "stepvalue": list(stepvalue)}
    path = write_solver(workdir, TINY, **settings)
    h = hyperparameters(read_solver(path), {})
    for iteration in range(10):
        native = caffe.SGDSolver(str(path))
        for _ in range(iteration):
            native.apply_update()
        schedule = Schedule(h)
        schedule.catch_up(iteration)
        assert schedule.rate(iteration).tobytes() == np.float32(native.lr).tobytes(), iteration


REAL = [f.name for f in dataclasses.fields(HyperParameters) if isinstance(f.default, np.float32)]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", REAL)
def test_what_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got {value}; expected a finite number$"):
        HyperParameters(**{"base_lr": 0.1, name: float(value)})
