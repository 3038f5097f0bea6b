"""Sums of squares of a block that is in the cache, for norms: in the order of ``statistics.py``.

Unlike figures, they take in what is not finite. Several are taken in one loop: each has to wait for
its own last addition, and not for those of the others.
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


@intrinsic
def _add_rows(context: Any, places: Any, rows: Any, lanes: Any) -> Any:
    """Add the squares of rows of 16 values, at several places, to the lanes of each place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places, rows, lanes = arguments
        single, double = (ir.VectorType(kind(), LANES) for kind in (ir.FloatType, ir.DoubleType))
        kind = ir.FunctionType(double, [double] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f64")
        sums = []
        for number in range(signature.args[0].count):
            row = builder.inttoptr(builder.extract_value(places, number), single.as_pointer())
            lane = builder.add(lanes, lanes.type(layout.LANES_BYTES * number))
            lane = builder.inttoptr(lane, double.as_pointer())
            sum_ = cgutils.alloca_once_value(builder, builder.load(lane, align=8))
            sums.append((row, lane, sum_))
        with cgutils.for_range(builder, rows) as loop:
            for row, _, sum_ in sums:
                x = builder.fpext(builder.load(builder.gep(row, [loop.index]), align=4), double)
                # A float32's square is exact in float64: rounded once or twice, it is the same.
                builder.store(builder.call(fma, [x, x, builder.load(sum_)]), sum_)
        for _, lane, sum_ in sums:
            builder.store(builder.load(sum_), lane, align=8)
        return context.get_dummy_value()

    return types.void(places, types.int64, types.int64), generate


@njit(**_OPTIONS)
def clear_squares(count, lanes):
    """Begin to add up."""
    for number in range(count):
        sums = carray(_doubles_at(lanes + layout.LANES_BYTES * number), (LANES,))
        for lane in range(LANES):
            sums[lane] = 0


@njit(**_OPTIONS)
def add_squares(n, places, lanes):
    """Add blocks of n values, by their addresses, to the lanes of each."""
    _add_rows(places, n // LANES, lanes)
    for number, place in enumerate(places):
        x = carray(_floats_at(place), (n,))
        sums = carray(_doubles_at(lanes + layout.LANES_BYTES * number), (LANES,))
        for i in range(n - n % LANES, n):
            wide = np.float64(x[i])
            sums[i % LANES] += wide * wide


@njit(**_OPTIONS)
def sum_squares(count, lanes, row):
    """Add the lanes up, in order, into the sums of a chunk."""
    totals = carray(_doubles_at(row), (count,))
    for number in range(count):
        sums = carray(_doubles_at(lanes + layout.LANES_BYTES * number), (LANES,))
        totals[number] = 0
        for lane in range(LANES):
            totals[number] += sums[lane]
