"""Figures of a block that is in the cache, added up in the order that ``statistics.py`` defines.

Sixteen lanes of each sum are sixteen elements of a vector register; the loop is written in LLVM's
own vectors, so that its order never depends on what an optimizer finds.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from caffe_pysgd.update.fused import layout
from caffe_pysgd.update.fused.elements import pointer_to
from caffe_pysgd.update.statistics import LANES

_OPTIONS = {"error_model": "numpy"}
_floats_at, _doubles_at = pointer_to(types.float32), pointer_to(types.float64)
_integers_at, _longs_at = pointer_to(types.int32), pointer_to(types.int64)

# The lanes of one quantity: two sums in float64, two extremes in float32, zeros in int32, and how
# many values were not finite.
_SUMSQ, _MIN, _MAX, _ZEROS = 8 * LANES, 16 * LANES, 20 * LANES, 24 * LANES
_NONFINITE = 28 * LANES
_WORDS = _NONFINITE // 8 + 1
assert 8 * _WORDS <= layout.LANES_BYTES


@intrinsic
def _add_rows(context: Any, floats: Any, rows: Any, lanes: Any) -> Any:
    """Add rows of 16 values to the lanes if all of them are finite; return whether they are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        floats, rows, lanes = arguments
        single, double = (ir.VectorType(kind(), LANES) for kind in (ir.FloatType, ir.DoubleType))
        whole = ir.VectorType(ir.IntType(32), LANES)
        at = [(0, double), (_SUMSQ, double), (_MIN, single), (_MAX, single), (_ZEROS, whole)]
        places = [
            builder.inttoptr(
                builder.add(lanes, ir.Constant(lanes.type, offset)), vector.as_pointer()
            )
            for offset, vector in at
        ]
        variables = [cgutils.alloca_once(builder, vector) for _, vector in at]
        for place, variable in zip(places, variables):
            builder.store(builder.load(place, align=8), variable)
        total, sumsq, low, high, zeros = variables
        kind = ir.FunctionType(double, [double] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f64")
        row = builder.inttoptr(floats, single.as_pointer())
        with cgutils.for_range(builder, rows) as loop:
            x = builder.load(builder.gep(row, [loop.index]), align=4)
            wide = builder.fpext(x, double)
            builder.store(builder.fadd(builder.load(total), wide), total)
            # A float32's square is exact in float64: rounded once or twice, the sum is the same.
            builder.store(builder.call(fma, [wide, wide, builder.load(sumsq)]), sumsq)
            for extreme, order in ((low, "<"), (high, ">")):
                old = builder.load(extreme)
                new = builder.select(builder.fcmp_ordered(order, x, old), x, old)
                builder.store(new, extreme)
            zero = builder.fcmp_ordered("==", x, ir.Constant(single, [0.0] * LANES))
            count = builder.add(builder.load(zeros), builder.zext(zero, whole))
            builder.store(count, zeros)
        # Where any value is not finite, so is a sum of squares, and the difference to itself.
        squares = builder.load(sumsq)
        difference = builder.fsub(squares, squares)
        finite = builder.fcmp_ordered("==", difference, ir.Constant(double, [0.0] * LANES))
        mask = ir.IntType(LANES)
        all_finite = builder.icmp_unsigned("==", builder.bitcast(finite, mask), mask(-1))
        with builder.if_then(all_finite):
            for place, variable in zip(places, variables):
                builder.store(builder.load(variable), place, align=8)
        return builder.zext(all_finite, ir.IntType(64))

    return types.int64(types.int64, types.int64, types.int64), generate


@njit(**_OPTIONS)
def reset(lanes):
    """Begin to add up."""
    sums = carray(_doubles_at(lanes), (2 * LANES,))
    extremes = carray(_floats_at(lanes + _MIN), (2 * LANES,))
    zeros = carray(_integers_at(lanes + _ZEROS), (LANES,))
    for lane in range(LANES):
        sums[lane] = sums[LANES + lane] = 0
        extremes[lane], extremes[LANES + lane] = np.inf, -np.inf
        zeros[lane] = 0
    carray(_longs_at(lanes + _NONFINITE), (1,))[0] = 0


@njit(**_OPTIONS)
def copy(lanes, to):
    """Let the lanes of one quantity be those of another."""
    source, target = carray(_longs_at(lanes), (_WORDS,)), carray(_longs_at(to), (_WORDS,))
    for word in range(_WORDS):
        target[word] = source[word]


@njit(**_OPTIONS)
def measure(n, x, floats, lanes):
    """Add a block to the lanes: n values, as an array and by address."""
    rows = n // LANES
    if _add_rows(floats, rows, lanes) == 0:
        rows = 0
    if rows * LANES < n:
        _add_values(rows * LANES, n, x, lanes)


@njit(**_OPTIONS)
def _add_values(first, past, x, lanes):
    sums = carray(_doubles_at(lanes), (2 * LANES,))
    extremes = carray(_floats_at(lanes + _MIN), (2 * LANES,))
    zeros = carray(_integers_at(lanes + _ZEROS), (LANES,))
    nonfinite = carray(_longs_at(lanes + _NONFINITE), (1,))
    for i in range(first, past):
        lane = i % LANES
        if np.isfinite(x[i]):
            wide = np.float64(x[i])
            sums[lane] += wide
            sums[LANES + lane] += wide * wide
            extremes[lane] = min(extremes[lane], x[i])
            extremes[LANES + lane] = max(extremes[LANES + lane], x[i])
            zeros[lane] += np.int32(x[i] == 0)
        else:
            nonfinite[0] += 1


@njit(**_OPTIONS)
def finish(lanes, row):
    """Add the lanes up, in order, into the figures of a chunk."""
    sums = carray(_doubles_at(lanes), (2 * LANES,))
    extremes = carray(_floats_at(lanes + _MIN), (2 * LANES,))
    zeros = carray(_integers_at(lanes + _ZEROS), (LANES,))
    figures = carray(_doubles_at(row), (layout.FIGURES,))
    for number in range(layout.FIGURES):
        figures[number] = 0
    figures[layout.MIN], figures[layout.MAX] = np.inf, -np.inf
    for lane in range(LANES):
        figures[layout.TOTAL] += sums[lane]
        figures[layout.SUMSQ] += sums[LANES + lane]
        figures[layout.MIN] = min(figures[layout.MIN], extremes[lane])
        figures[layout.MAX] = max(figures[layout.MAX], extremes[LANES + lane])
        figures[layout.ZEROS] += zeros[lane]
    figures[layout.NONFINITE] = carray(_longs_at(lanes + _NONFINITE), (1,))[0]
