"""What corrects Adam's means for their start at zero; ``t`` counts updates from 1."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from caffe_pysgd.update.libm import pow, sqrt

F = np.float32


@lru_cache(maxsize=8)
def adam_correction(beta1: np.float32, beta2: np.float32, t: int) -> np.float32:
    """Return ``sqrt(1 - beta2^t) / (1 - beta1^t)``, in double as Caffe's ``adam_solver.cpp``."""
    with np.errstate(all="ignore"):  # to inf or nan, as C divides
        return F(np.float64(sqrt(1 - pow(beta2, t))) / np.float64(1 - pow(beta1, t)))


def correction(beta: np.float32, t: int) -> np.float32:
    """Return ``1 - beta^t``."""
    return F(1 - float(beta) ** t)
