"""Figures of a block that is in the cache, added up in the order that ``statistics.py`` defines.

The sixteen lanes of each sum are the sixteen elements of a vector.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
from __future__ import annotations

from typing import Any

from llvmlite import ir

from caffe_pysgd.update.fused import layout
from caffe_pysgd.update.fused.flow import (
    DOUBLE,
    FLOAT,
    FLOATS,
    LONG,
    VOID,
    WORD,
    long,
    loop,
    past_whole,
)
from caffe_pysgd.update.fused.vectors import Arithmetic, Values
from caffe_pysgd.update.statistics import LANES

_LANES = {"total": DOUBLE, "sumsq": DOUBLE, "min": FLOAT, "max": FLOAT}
_COUNTS = ("zeros", "nonfinite")


def define_measure(module: Any, how: Arithmetic) -> Any:
    """Return a function that adds the values of an array from first to past to the lanes there are.

    A vector with a value that is not finite spoils its sums: then the block is added up again, one
    value after the other.
    """
    kind = ir.FunctionType(VOID, [FLOATS, LONG, LONG, LONG])
    function = ir.Function(module, kind, "measure")
    function.linkage = "internal"
    x, first, past, lanes = function.args
    b = ir.IRBuilder(function.append_basic_block())
    several, single = Values(b, LANES, how), Values(b, 1, how)
    fields: Any = layout.FIGURES.fields
    at = {name: b.add(lanes, long(field[1])) for name, field in fields.items()}
    places = [b.inttoptr(at[name], kind.as_pointer()) for name, kind in _LANES.items()]
    zeros, nonfinite = (b.inttoptr(at[name], LONG.as_pointer()) for name in _COUNTS)
    sums = [*(several.load(place, long(0)) for place in places), b.load(zeros)]
    whole = past_whole(b, first, past)
    with loop(b, first, whole, LANES, sums) as (i, sums):
        several.prefetch(x, b.add(i, long(layout.SMALL_BLOCK)))
        sums[:] = _added(several, several.load(x, i), *sums)
    difference = b.fsub(sums[1], sums[1])
    finite = b.fcmp_ordered("==", difference, several.constant(0, DOUBLE))
    all_finite = b.icmp_unsigned("==", b.bitcast(finite, WORD), WORD(-1))
    with b.if_then(all_finite):
        for value, place in zip(sums, places):
            several.store(value, place, long(0))
        b.store(sums[-1], zeros)
    with loop(b, b.select(all_finite, whole, first), past, 1) as (i, _):
        value, lane = single.load(x, i), b.and_(i, long(LANES - 1))
        fits = b.fcmp_ordered("==", b.fsub(value, value), single.constant(0))
        with b.if_else(fits) as (then, otherwise):
            with then:
                sums = [*(single.load(place, lane) for place in places), b.load(zeros)]
                *added, count = _added(single, value, *sums)
                for new, place in zip(added, places):
                    single.store(new, place, lane)
                b.store(count, zeros)
            with otherwise:
                b.store(b.add(b.load(nonfinite), long(1)), nonfinite)
    b.ret_void()
    return function


def _added(v: Values, x, total, sumsq, low, high, zeros):
    """Return the sums and extremes with one more value in each lane."""
    return [
        v.b.fadd(total, v.b.fpext(x, v.of(DOUBLE))),
        v.add_square(x, sumsq),
        v.b.select(v.less(x, low), x, low),
        v.b.select(v.greater(x, high), x, high),
        v.b.add(zeros, v.count(v.equal(x, v.constant(0)))),
    ]
