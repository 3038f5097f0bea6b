"""Which way this Caffe rounds, found by asking it."""

from __future__ import annotations

from functools import lru_cache
from typing import Optional

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.update.kernels.caffe import CaffeKernels

F = np.float32

# Below and beyond what a BLAS takes in one go, and beyond where it starts threads: what is rounded
# in the main loop and what in the tail are different pieces of code.
_LENGTHS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129, 1000, 10007, 40011)
_POWERS = 1 << 16

# The band around midpoints in which libm may round a power either way, in ulp; ``vectors.py``
# says why it is enough, and a slow test goes through all floats.
BAND = F(1 / 512)


class UnmatchedRounding(UserError):
    """Caffe's kernels round in a way that no fused pass does."""


@lru_cache(maxsize=None)
def rounds_once(library_path: Optional[str]) -> bool:
    """Return whether Caffe's axpy is a fused multiply-add, rounded once, or rounded twice.

    Args:
        library_path: a shared library through which Caffe's symbols resolve.

    Raises:
        MissingSymbols: there are none.
        UnmatchedRounding: it is neither, not everywhere the same, or libm's powf rounds otherwise
            than within the band around midpoints.
    """
    native = CaffeKernels(library_path)
    once = twice = True
    for length in _LENGTHS:
        found = _axpy_rounding(native, length)
        once, twice = once and found[0], twice and found[1]
    if not once and not twice:
        raise UnmatchedRounding(
            "kernels: fused: this Caffe's axpy rounds neither once nor twice throughout; take "
            "native"
        )
    _check_powers(native)
    return once


def _axpy_rounding(native: CaffeKernels, length: int) -> tuple[bool, bool]:
    """Return whether all results of one length are as if rounded once, and as if twice."""
    rng, times = np.random.RandomState(length), max(1, 64 // length)
    a = rng.standard_normal((times, 1)).astype(F)
    x, y = rng.standard_normal((2, times, length)).astype(F)
    exact = a.astype(np.float64) * x + y
    # Where float64 itself ends on a midpoint, it does not tell how the exact sum is rounded.
    sure = (exact.view(np.int64) & 0x1FFFFFFF) != 0x10000000
    rounded_once, rounded_twice = exact.astype(F), a * x + y
    for factor, row, sums in zip(a, x, y):
        native.axpy(factor[0], row, sums)
    return bool((y == rounded_once)[sure].all()), bool((y == rounded_twice).all())


def _check_powers(native: CaffeKernels) -> None:
    rng = np.random.RandomState(0)
    x = (rng.uniform(1, 4, _POWERS) * 2.0 ** rng.randint(-40, 40, _POWERS)).astype(F)
    found = np.empty_like(x)
    for exponent, rounded in ((F(0.5), np.sqrt(x)), (F(2), x * x)):
        native.powx(x, exponent, found)
        others = found != rounded
        if not near_midpoint(x[others], exponent, rounded[others]).all():
            raise UnmatchedRounding(
                f"kernels: fused: this libm's powf(x, {exponent}) is less exact than expected; "
                "take native"
            )


def near_midpoint(x: np.ndarray, exponent: np.float32, rounded: np.ndarray) -> np.ndarray:
    """Return where the exact power lies within the band around a midpoint of two floats.

    Args:
        rounded: the correctly rounded power.
    """
    wide, result = x.astype(np.float64), rounded.astype(np.float64)
    # Products of two float32 are exact in float64, and so are these differences.
    if exponent == F(2):
        error = np.abs(wide * wide - result)
    else:
        error = np.abs(wide - result * result) / (2 * result)
    ulp = np.ldexp(1.0, np.frexp(rounded)[1] - 24)
    near: np.ndarray = error > (0.5 - BAND) * ulp
    return near
