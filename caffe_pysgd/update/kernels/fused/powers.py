# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Squares and square roots of a block: libm's to the bit, at the speed of the correctly rounded.

A first loop, which LLVM vectorises, computes the correctly rounded result and marks the few
elements where libm may round otherwise; a second skips the marks eight at a time and calls libm's
powf only where there is one. Each is called with ``(n, x, out, work)``, where ``out`` is not ``x``
and ``work`` holds the address of powf and that of a byte for each value of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types

from caffe_pysgd.update.kernels.fused.elements import (
    call_powf,
    near_midpoint_root,
    near_midpoint_square,
    pointer_to,
    root,
    square,
)

F = np.float32
_OPTIONS = {"error_model": "numpy"}
_bytes_at, _words_at = pointer_to(types.uint8), pointer_to(types.uint64)


def _exactly(operation: Any, near_midpoint: Any, exponent: float) -> Any:
    exponent32 = F(exponent)

    @njit(**_OPTIONS)
    def power(n, x, out, work):
        marks = carray(_bytes_at(work[1]), (n + 8,))
        words = carray(_words_at(work[1]), ((n + 7) // 8,))
        for i in range(n, n + 8):
            marks[i] = 0
        for i in range(n):
            value = operation(x[i])
            marks[i] = np.uint8(near_midpoint(x[i], value))
            out[i] = value
        for w in range(words.size):
            if words[w] != 0:
                for i in range(8 * w, min(8 * w + 8, n)):
                    if marks[i] != 0:
                        out[i] = call_powf(work[0], x[i], exponent32)

    return power


block_square = _exactly(square, near_midpoint_square, 2)
block_root = _exactly(root, near_midpoint_root, 0.5)
