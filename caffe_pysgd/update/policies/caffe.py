"""Caffe's learning-rate policies: the rate at an iteration, to the last bit.

One function per ``lr_policy``, simplest first, each the formula in the comment at the top of
Caffe's ``src/caffe/solvers/sgd_solver.cpp`` (``GetLearningRate``). ``i`` is the iteration. Where
C++ computes in float, so do they (every operand is float32); where its ``pow`` takes an integer
exponent and therefore computes in double, ``_times_power`` does.
"""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np

from caffe_pysgd.errors import SettingError
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels.libm import expf, pow, powf

F = np.float32

Policy = Callable[[HyperParameters, int, int], np.float32]


def current_step(h: HyperParameters, i: int, step: int) -> int:
    """Return the step after evaluating the rate at iteration ``i``, given the step before it.

    Caffe keeps ``current_step`` in the solver state. ``multistep`` advances by at most one per
    evaluation, so a run that resumes far ahead catches up one step an iteration, as Caffe's does.
    """
    if h.lr_policy == "step":
        return i // h.stepsize
    if h.lr_policy == "multistep" and step < len(h.stepvalue) and i >= h.stepvalue[step]:
        return step + 1
    return step


def step_before(h: HyperParameters, i: int) -> int:
    """Return the step at iteration ``i``, before its own rate is evaluated, of a run from 0 on."""
    if i <= 0:
        return 0
    if h.lr_policy == "step":
        return (i - 1) // h.stepsize
    if h.lr_policy != "multistep":
        return 0
    step, evaluated_at = 0, -1
    for value in h.stepvalue:  # each evaluation takes one step at most, so no two share one
        evaluated_at = max(value, evaluated_at + 1)
        if evaluated_at >= i:
            break
        step += 1
    return step


def fixed(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr"""
    return h.base_lr


def exp(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr * gamma ^ i"""
    return _times_power(h.base_lr, h.gamma, i)


def step(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr * gamma ^ floor(i / stepsize)"""
    return _times_power(h.base_lr, h.gamma, step)


def multistep(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr * gamma ^ (number of stepvalues reached)"""
    return _times_power(h.base_lr, h.gamma, step)


def inv(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr * (1 + gamma * i) ^ -power"""
    return h.base_lr * powf(F(1) + h.gamma * F(i), -h.power)


def poly(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr * (1 - i / max_iter) ^ power"""
    return h.base_lr * powf(F(1) - F(i) / F(h.max_iter), h.power)


def sigmoid(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr / (1 + exp(-gamma * (i - stepsize)))"""
    return h.base_lr * (F(1) / (F(1) + expf(-h.gamma * (F(i) - F(h.stepsize)))))


def _times_power(base_lr: np.float32, gamma: np.float32, exponent: int) -> np.float32:
    return F(float(base_lr) * pow(float(gamma), exponent))


POLICIES: Dict[str, Policy] = {
    policy.__name__: policy for policy in (fixed, step, exp, inv, multistep, poly, sigmoid)
}


def check(h: HyperParameters) -> None:
    """Refuse what Caffe's ``CHECK``s would abort on at the first update.

    Raises:
        SettingError: naming the field.
    """
    needs = f"(lr_policy '{h.lr_policy}')"
    if h.lr_policy in ("step", "sigmoid") and h.stepsize <= 0:
        raise SettingError("stepsize", h.stepsize, f"more than 0 {needs}")
    if h.lr_policy in ("step", "exp", "inv", "multistep", "sigmoid") and not h.gamma >= 0:
        raise SettingError("gamma", h.gamma, f"0 or more {needs}")
