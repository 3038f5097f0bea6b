"""libm's powf differs from the correctly rounded result only in the band around midpoints.

This is what makes the fused kernels exact. The slow tests go through every positive float.
"""

from __future__ import annotations

import numpy as np
import pytest

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update.fused.probe import near_midpoint
from caffe_pysgd.update.kernels.caffe import CaffeKernels

F = np.float32
NATIVE = CaffeKernels(pycaffe.library_path())
INFINITY = int(F(np.inf).view(np.int32))
STEP = 1 << 22


def _check(exponent: float, first: int, last: int) -> int:
    """Check all floats with bits in a range; return how many libm rounds otherwise."""
    x = np.arange(first, last, dtype=np.int32).view(F)
    found = np.empty_like(x)
    NATIVE.powx(x, F(exponent), found)
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.sqrt(x) if exponent == 0.5 else x * x
        # The kernels ask libm for tiny squares, roots of tiny values, and squares that overflow.
        tiny = x if exponent == 0.5 else rounded
        known = ((tiny == 0) | (tiny >= F(2.0**-100))) & np.isfinite(rounded)
        differ = found != rounded
        near = near_midpoint(x, F(exponent), rounded)
    assert not (differ & known & ~near).any()
    return int((differ & known).sum())


@pytest.mark.parametrize("exponent", [0.5, 2])
def test_the_band_holds_all_differences_in_a_sample(exponent: float) -> None:
    # Two octaves, in which roots and squares take all their mantissas.
    one = int(F(1).view(np.int32))
    differ = sum(_check(exponent, s, s + STEP) for s in range(one, one + (1 << 24), STEP))
    assert differ > 1000  # libm's powf is not correctly rounded; otherwise this shows nothing


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [0.5, 2])
def test_the_band_holds_all_differences(exponent: float) -> None:
    differ = sum(_check(exponent, s, min(s + STEP, INFINITY)) for s in range(0, INFINITY, STEP))
    assert differ > 100_000


@pytest.mark.slow
def test_the_compiled_powers_are_libms_for_every_float() -> None:
    """What is compiled, not only what it was derived from: AdaGrad over every gradient's square,
    and over every history's root.
    """
    from caffe_pysgd.update import RULES, HyperParameters, Parameter, Updater, make_kernels

    h = HyperParameters(base_lr=1, delta=0)
    for start in range(0, INFINITY, STEP):
        x = np.arange(start, min(start + STEP, INFINITY), dtype=np.int32).view(F)
        results = []
        for kernels in ("fused", "native"):
            # The first update squares x into the history; a second with history x takes its root.
            square = Parameter("square", np.zeros_like(x), x.copy())
            root = Parameter("root", np.zeros_like(x), np.full_like(x, 1e-25))
            states = [{"history": np.zeros_like(x)}, {"history": x.copy()}]
            make = make_kernels(kernels, pycaffe.library_path())
            some = Updater([square, root], h, RULES["adagrad"](), make, states=states)
            some.step(0)
            results.append((states[0]["history"], root.diff))
        for fused, native in zip(*results):
            assert fused.tobytes() == native.tobytes()
