"""What corrects Adam's means for their start at zero; ``t`` counts updates from 1."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from caffe_pysgd.update.kernels.libm import pow, sqrt

F = np.float32


def adam_correction(beta1: np.float32, beta2: np.float32, t: int) -> np.float32:
    """Return ``sqrt(1 - beta2^t) / (1 - beta1^t)``, in double as Caffe's ``adam_solver.cpp``."""
    value = _adam_correction(float(beta1), float(beta2), t)
    return _told(f"sqrt(1 - {{1}}^{t}) / (1 - {{0}}^{t})", value, beta1, beta2)


@lru_cache(maxsize=8)
def _adam_correction(beta1: float, beta2: float, t: int) -> np.float32:
    with np.errstate(all="ignore"):  # to inf or nan, as C divides
        return F(np.float64(sqrt(1 - pow(beta2, t))) / np.float64(1 - pow(beta1, t)))


def correction(beta: np.float32, t: int) -> np.float32:
    """Return ``1 - beta^t``."""
    return _told(f"1 - {{0}}^{t}", F(1 - float(beta) ** t), beta)


def _told(formula: str, value: np.float32, *of: Any) -> np.float32:
    """Return a value, with its formula where it is of scalars that are to be explained."""
    return of[0].derived(formula, value, *of[1:]) if hasattr(of[0], "derived") else value
