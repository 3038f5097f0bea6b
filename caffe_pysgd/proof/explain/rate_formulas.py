"""The rate of an iteration on a board: the policy's formula, with names and with numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from caffe_pysgd.proof.explain.arithmetic import decimal
from caffe_pysgd.update import HyperParameters
from caffe_pysgd.update.policies import Schedule
from caffe_pysgd.update.policies.beyond import warmed_up
from caffe_pysgd.update.policies.plateau import PlateauState

# With {names}; i is the iteration, and what is no hyper-parameter _numbers() computes.
_FORMULAS = {
    "fixed": "{base_lr}",
    "step": "{base_lr} · {gamma}^({i} // {stepsize})",
    "exp": "{base_lr} · {gamma}^{i}",
    "inv": "{base_lr} · (1 + {gamma} · {i})^-{power}",
    "multistep": "{base_lr} · {gamma}^{current_step}",
    "plateau": "{base_lr} · {gamma}^{current_step}",
    "poly": "{base_lr} · (1 - {i} / {max_iter})^{power}",
    "sigmoid": "{base_lr} / (1 + exp(-{gamma} · ({i} - {stepsize})))",
    "table": "lr_table at {i}",
    "cosine": "{lr_min} + ({base_lr} - {lr_min}) · (1 + cos(pi · {tau} / {period})) / 2",
    "one_cycle": "one_cycle({base_lr}, {i} of {max_iter})",
}


@dataclass(frozen=True)
class Rate:
    """A rate and how it comes about.

    Attributes:
        formula, numbers: the policy's, the warm-up's factor included.
        value: the rate, as the update computes it.
    """

    formula: str
    numbers: str
    value: np.float32


def rate_of(h: HyperParameters, iteration: int, plateaus: int = 0) -> Rate:
    """Return the rate at an iteration, as if every one before had been computed.

    Args:
        h: the hyper-parameters.
        iteration: counted from 0.
        plateaus: the step of lr_policy ``plateau``, which the iteration does not tell.

    Raises:
        UserError: a policy of the user's own is not there, or fails.
    """
    schedule = Schedule(h)
    schedule.catch_up(iteration)
    if h.lr_policy == "plateau":
        schedule.go_on_from(plateaus, PlateauState(iter_last_event=iteration))
    value = schedule.rate(iteration)
    formula = _FORMULAS.get(h.lr_policy, f"{h.lr_policy}({{i}})")
    known = _numbers(h, iteration, schedule.current_step)
    names, numbers = formula.format_map({name: name for name in known}), formula.format_map(known)
    if warmed_up(h, iteration, np.float32(1)) != 1 or iteration < h.warmup_iter:
        start, length = decimal(h.warmup_start), h.warmup_iter
        names = f"({names}) · (warmup_start + (1 - warmup_start) · i / warmup_iter)"
        numbers = f"({numbers}) · ({start} + (1 - {start}) · {iteration} / {length})"
    return Rate(names, numbers, value)


def plateaus_before(h: HyperParameters, iteration: int, rate: Optional[float]) -> int:
    """Return the step of lr_policy ``plateau`` with which an iteration has this rate; 0 if none."""
    steps = range(len(h.plateau_winsize) + 1)
    return next((step for step in steps if rate_of(h, iteration, step).value == rate), 0)


def _numbers(h: HyperParameters, iteration: int, current_step: int) -> dict[str, str]:
    known = {
        name: decimal(value) if isinstance(value, np.float32) else str(value)
        for name, value in vars(h).items()
    }
    known.update(i=str(iteration), current_step=str(current_step))
    if h.lr_policy == "cosine":
        tau, period = _place_in_period(h, iteration)
        known.update(tau=f"{tau:g}", period=f"{period:g}")
    return known


def _place_in_period(h: HyperParameters, iteration: int) -> tuple[float, float]:
    """Return how far a cosine is in its period, and how long that is."""
    if h.stepsize <= 0:
        return float(min(iteration, h.max_iter)), float(h.max_iter)
    tau, period = float(iteration), float(h.stepsize)
    while tau >= period:
        tau, period = tau - period, period * float(h.period_mult)
    return tau, period
