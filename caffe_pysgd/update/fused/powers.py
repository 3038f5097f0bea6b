# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Squares and square roots of a block: libm's to the bit, at the speed of the correctly rounded.

A rule's own loop, which LLVM vectorises, computes the correctly rounded result and marks the few
elements where libm may round otherwise. To settle them, the marks are skipped eight at a time, and
libm's powf is called only where there is one. ``work`` holds the address of powf, that of a byte
for each value of a block, and that of room for a list of the words that these bytes make.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types

from caffe_pysgd.update.fused.elements import call_powf, first_bit, pointer_to

F = np.float32
_ONE = np.uint64(1)
_OPTIONS = {"error_model": "numpy"}
_bytes_at, _words_at = pointer_to(types.uint8), pointer_to(types.uint64)


@njit(**_OPTIONS)
def marks_at(n, work):
    """Return the marks of a block, with none behind its end."""
    marks = carray(_bytes_at(work[1]), (n + 8,))
    for i in range(n, n + 8):
        marks[i] = 0
    return marks


def settling(exponent: float) -> Any:
    """Return a function that asks libm for the marked powers with this exponent."""
    exponent32 = F(exponent)

    @njit(**_OPTIONS)
    def settle(n, x, out, work):
        words = carray(_words_at(work[1]), ((n + 7) // 8,))
        listed = carray(_words_at(work[2]), (words.size + 1,))
        count = 0
        for w in range(words.size):  # without a branch, which nobody could foresee
            listed[count] = w
            count += words[w] != 0
        for number in range(count):
            start = 8 * listed[number]
            marks = words[listed[number]]
            while marks != 0:
                i = start + first_bit(marks) // 8
                out[i] = call_powf(work[0], x[i], exponent32)
                marks &= marks - _ONE

    return settle
