"""The learning rate over the iterations: a policy, whoever wrote it, with its step and warm-up."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Tuple

import numpy as np

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.plugins import import_by_name
from caffe_pysgd.update.policies import beyond, caffe, plateau
from caffe_pysgd.update.policies.beyond import warmed_up
from caffe_pysgd.update.policies.caffe import Policy
from caffe_pysgd.update.policies.plateau import UNSEEN, PlateauState

POLICIES = {**caffe.POLICIES, **beyond.POLICIES}

_NO_LOSS = np.float32(np.inf)


class Schedule:
    """The learning rate as a function of the iteration.

    Args:
        h: the hyper-parameters; ``lr_policy`` is Caffe's, one of ours, or ``module:function``,
            which is called as ``function(h, iteration)`` and returns the rate.

    Attributes:
        current_step: the step of ``step``, ``multistep`` and ``plateau``, part of the solver's
            state.
        plateau: what ``plateau`` has seen of the loss, the other part.

    Raises:
        UserError: there is no such policy, or it refuses its settings.
    """

    def __init__(self, h: HyperParameters) -> None:
        caffe.check(h)
        beyond.check(h)
        plateau.check(h)
        self.h = h
        self.current_step = 0
        self.plateau = UNSEEN
        self._policy = _find_policy(h.lr_policy)
        self.iteration, self.value = 0, np.float32(0)

    def advance(self, iteration: int, smoothed_loss: np.float32) -> np.float32:
        """Come to an iteration; return its rate, which is ``value`` from now on."""
        self.iteration, self.value = iteration, self.rate(iteration, smoothed_loss)
        return self.value

    def rate(self, iteration: int, smoothed_loss: np.float32 = _NO_LOSS) -> np.float32:
        """Return the global rate; like Caffe's ``GetLearningRate``, it may advance the step."""
        if self.h.lr_policy == "plateau":
            self.current_step, self.plateau = plateau.advance(
                self.h, iteration, self.current_step, self.plateau, smoothed_loss
            )
        self.current_step = caffe.current_step(self.h, iteration, self.current_step)
        rate = self._policy(self.h, iteration, self.current_step)
        return warmed_up(self.h, iteration, rate)

    def catch_up(self, iteration: int) -> None:
        """Take the step that evaluating the rate at iterations 0 to ``iteration - 1`` leaves.

        That of ``plateau`` the iteration does not tell.
        """
        if self.h.lr_policy != "plateau":
            self.current_step = caffe.step_before(self.h, iteration)

    def go_on_from(self, current_step: int, seen: PlateauState) -> None:
        """Take the state of a schedule that has been evaluated before."""
        self.current_step, self.plateau = current_step, seen


def caffe_knows_the_rate(h: HyperParameters) -> bool:
    """Return whether Caffe computes the same rate from its own fields."""
    return h.lr_policy in caffe.POLICIES and h.warmup_iter == 0


def schedule_of(h: HyperParameters) -> Tuple[Any, ...]:
    """Return what decides the rate: equal for hyper-parameters that share a schedule."""
    names = (
        "base_lr", "lr_policy", "gamma", "power", "stepsize", "stepvalue", "max_iter",
        "warmup_iter", "warmup_start", "lr_min", "period_mult", "pct_start", "div_factor",
        "final_div_factor", "lr_table", "plateau_winsize",
    )  # fmt: skip
    if ":" in h.lr_policy:  # a function of the user's may look at anything
        return (h,)
    return tuple(getattr(h, name) for name in names)


def _find_policy(name: str) -> Policy:
    if name in POLICIES:
        return POLICIES[name]
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise SettingError("lr_policy", name, one_of(POLICIES, name, " or module:function"))
    function: Any = import_by_name("lr_policy", module_name, function_name)
    if not callable(function):
        raise SettingError("lr_policy", name, "a function")

    def policy(h: HyperParameters, iteration: int, step: int) -> np.float32:
        try:
            rate = function(h, iteration)
        except Exception as error:
            raise UserError(
                f"lr_policy {name}, iteration {iteration}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(rate, Real) or not math.isfinite(rate):
            raise UserError(
                f"lr_policy {name}: returned {rate!r} at iteration {iteration}; expected a finite "
                "number"
            )
        return np.float32(float(rate))

    return policy
