"""Settings with another value: which base_lr, momentum or weight_decay would explain it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterator, Tuple

import numpy as np

from caffe_pysgd.proof.diagnose.evidence import Evidence
from caffe_pysgd.proof.diagnose.faults import Fault
from caffe_pysgd.proof.diagnose.hand_written import Loop, predict
from caffe_pysgd.update import HyperParameters

_FITTED = {"base_lr": np.inf, "momentum": 1.0, "weight_decay": np.inf}
"""The settings that are fitted, and what they must stay below."""
_LEAST = 1e-6
"""What is less is a setting that is missing, not one with another value."""


def other_values(
    loop: Loop, h: HyperParameters, evidence: Evidence, iteration: int
) -> Iterator[Tuple[Fault, HyperParameters]]:
    """Yield what may explain that a model does not agree at an iteration, where it did before.

    The first iteration that a setting tells in is linear in it, so that one step of Newton's finds
    its value. People write few digits: of the values near it those with few digits come first.
    """
    for name, most in _FITTED.items():
        value = _fit(loop, h, evidence, iteration, name)
        if not _LEAST < value < most:
            continue
        for digits in range(1, 8):
            rounded = float(f"{value:.{digits}g}")
            other = _with(h, name, rounded)
            if abs(rounded - value) <= 1e-3 * value and getattr(other, name) != getattr(h, name):
                yield _fault(name, other, h), other


def _with(h: HyperParameters, name: str, value: float) -> HyperParameters:
    changed: Dict[str, Any] = {name: value}
    return replace(h, **changed)


def _fault(name: str, other: HyperParameters, h: HyperParameters) -> Fault:
    value, right = getattr(other, name), getattr(h, name)
    return Fault(
        f"other_{name}",
        f"{name} is {value!s}, the solver's is {right!s}",
        f"{name} = {right!s}",
    )


def _fit(loop: Loop, h: HyperParameters, evidence: Evidence, iteration: int, name: str) -> float:
    value = float(getattr(h, name))
    moved = _with(h, name, value * 1.125 if value else 0.001)
    before, after = _at(loop, h, evidence, iteration), _at(loop, moved, evidence, iteration)
    kept = evidence.compared
    slope = (after - before)[kept] / (float(getattr(moved, name)) - value)
    missing = (evidence.moments[iteration].after - before)[kept]
    with np.errstate(all="ignore"):
        return value + float(np.dot(slope, missing) / np.dot(slope, slope))


def _at(loop: Loop, h: HyperParameters, evidence: Evidence, iteration: int) -> np.ndarray:
    for number, (weights, _) in enumerate(predict(loop, h, evidence)):
        if number == iteration:
            return weights
    raise IndexError(iteration)
