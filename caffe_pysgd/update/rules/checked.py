"""Calling a rule: what a user's returns, raises or does to its state is looked at."""

from __future__ import annotations

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.policies import Schedule
from caffe_pysgd.update.rules import RULES, ParameterStep, UpdateRule

F = np.float32


_OWN = frozenset(RULES.values())


def call(rule: UpdateRule, step: ParameterStep) -> Floats:
    """Return a rule's update value; of a user's rule, look at that and at what became of its state.

    The state must stay in the arrays that the rule was given: they are the snapshot's.

    Raises:
        UserError: naming rule, parameter and iteration.
    """
    if step.trusted or type(rule) in _OWN:
        return rule.update(step)
    slots = dict(step.state)
    try:
        value = rule.update(step)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_where(rule, step)}: {type(error).__name__}: {error}") from error
    for slot, array in step.state.items():
        if slot not in slots:
            raise UserError(f"{_where(rule, step)}: state: '{slot}' is not among its slots")
        if array is not slots[slot]:
            _check_array(array, f"{_where(rule, step)}: state['{slot}'] became", step)
            slots[slot][...] = array
    step.state.update(slots)
    return _checked_value(value, rule, step)


def _checked_value(value: object, rule: UpdateRule, step: ParameterStep) -> Floats:
    array = _check_array(value, f"{_where(rule, step)}: update() returned", step)
    unfit = np.flatnonzero(~np.isfinite(array))
    if unfit.size:
        index = int(unfit[0])
        raise not_finite(rule, step, unfit.size, index, array[index], step.gradient[index])
    return np.ascontiguousarray(array)  # the kernels walk over memory, not over strides


def not_finite(
    rule: UpdateRule,
    step: ParameterStep,
    count: int,
    index: int,
    value: np.float32,
    gradient: np.float32,
) -> UserError:
    """Return what is said of an update with values that are not finite: how many, and the first."""
    return UserError(
        f"{_where(rule, step)}: update() returned {count} values that are not finite, the first at "
        f"index {index}: {value} from gradient {gradient}"
    )


def _check_array(value: object, what: str, step: ParameterStep) -> Floats:
    if not isinstance(value, np.ndarray):
        raise UserError(f"{what} {type(value).__name__}; expected an array of float32")
    if value.dtype != F:
        raise UserError(f"{what} an array of {value.dtype}; expected float32")
    if value.shape != step.gradient.shape:
        raise UserError(f"{what} shape {value.shape}; expected {step.gradient.shape}")
    return value


def _where(rule: UpdateRule, step: ParameterStep) -> str:
    return f"rule {name_of(rule)}, parameter {step.name}, iteration {step.iteration}"


def name_of(rule: UpdateRule) -> str:
    """Return what a rule is called; a user's own is ``module:Class``."""
    kind = type(rule)
    return rule.name if kind in _OWN else f"{kind.__module__}:{kind.__qualname__}"


def is_own(rule: UpdateRule) -> bool:
    """Return whether a rule is one of this package."""
    return type(rule) in _OWN


def check(h: HyperParameters, rule: UpdateRule) -> None:
    """Check that a rule and a learning-rate policy accept the hyper-parameters.

    Raises:
        UserError: naming the field.
    """
    Schedule(h)
    try:
        refusal = rule.check(h)
    except SettingError:
        raise
    except Exception as error:
        raise UserError(
            f"{name_of(rule)}: check() raised {type(error).__name__}: {error}"
        ) from error
    if refusal:
        raise UserError(refusal)
