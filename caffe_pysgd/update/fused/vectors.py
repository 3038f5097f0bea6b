"""What a pass does to sixteen values at once, or to a single one, in LLVM's own words.

Nothing is left for an optimizer to find: a vector is an LLVM vector, which becomes one instruction
where the processor's registers are as long, and some where they are shorter. Every operation is
rounded as IEEE 754 says. Imports llvmlite, so it is imported only where something is compiled.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple, Sequence, Tuple

import numpy as np
from llvmlite import ir

from caffe_pysgd.update.fused.flow import BIT, DOUBLE, FLOAT, INT, LONG, VOID
from caffe_pysgd.update.fused.probe import BAND
from caffe_pysgd.update.statistics import LANES

# libm's powf is not correctly rounded, but it is nearly: over all floats, powf(x, 1/2) differs from
# the correctly rounded square root, and powf(x, 2) from the correctly rounded x x, only where the
# exact result lies within 1/588 ulp of the midpoint between two floats
# (tests/native/test_guard_band.py goes through all of them). So the rounded result is libm's unless
# its residual, which a fused multiply-add gives exactly, says that a midpoint is closer than this:
_HALF_ULP = 2.0**-24  # of a number in [1, 2)
_EXPONENT = 0x7F800000
_TINY = int(np.float32(2.0**-100).view(np.int32))  # of what is smaller, residuals may underflow
_FURTHER = float(np.float32(1 / (1 - 2 * BAND)))
_NEAR_ROOT = float(np.float32(2 * (1 - 2 * BAND) * _HALF_ULP))  # r^2 - x: twice r times the error


def _takes_first(function: Any) -> bool:
    """Return whether this NumPy's maximum or minimum of two zeros, in place, is the first of them.

    NumPy 1.19 takes the first in place and the second otherwise; NumPy 2 always the second.
    """
    first, second = np.full((2, LANES), [[-0.0], [0.0]], np.float32)
    return bool(np.signbit(function(first, second, out=first)).all())


class Arithmetic(NamedTuple):
    """How values are computed.

    Attributes:
        rounds_once: whether a multiplication with an addition is rounded once.
        exact: whether powers are libm's.
        has_fma: whether the processor rounds once.
    """

    rounds_once: bool
    exact: bool
    has_fma: bool


class Values:
    """``width`` values that are computed alike; the operations have their names in a program.

    Args:
        b: llvmlite's builder.
        width: ``LANES``, or 1.
        nothing: 0, loaded from memory: an integer that a compiler does not know to be 0.

    Attributes:
        there: which of them there are; None: all.
    """

    there: Any = None

    def __init__(self, b: Any, width: int, how: Arithmetic, nothing: Any = None) -> None:
        self.b, self.width, self.how = b, width, how
        self._nothing = self.all_of(nothing) if nothing else None

    def of(self, kind: Any) -> Any:
        """Return the type of so many values of a kind."""
        return kind if self.width == 1 else ir.VectorType(kind, self.width)

    def constant(self, value: float, kind: Any = FLOAT) -> Any:
        """Return a constant."""
        return ir.Constant(self.of(kind), value if self.width == 1 else [value] * self.width)

    def all_of(self, value: Any) -> Any:
        """Return a single value as the value of all."""
        if self.width == 1:
            return value
        nothing = ir.Constant(self.of(value.type), ir.Undefined)
        first = self.b.insert_element(nothing, value, ir.Constant(INT, 0))
        return self.b.shuffle_vector(first, nothing, self.constant(0, INT))

    def load(self, array: Any, index: Any) -> Any:
        """Return the values of an array from an index on."""
        place, align = self._place(array, index)
        value = self.b.load(place)
        value.align = align
        return value

    def store(self, value: Any, array: Any, index: Any) -> None:
        """Put values into an array from an index on."""
        place, align = self._place(array, index)
        self.b.store(value, place).align = align

    def prefetch(self, array: Any, index: Any) -> None:
        """Have the values from an index on fetched from memory; there need not be any."""
        place = self.b.bitcast(self.b.gep(array, [index]), ir.IntType(8).as_pointer())
        operands = [place, *(ir.Constant(INT, flag) for flag in (0, 2, 1))]  # to read, into L2
        self._intrinsic("prefetch.p0i8", VOID, operands)

    def only_there(self, truths: Any) -> Any:
        """Return truth values, false where there is no value."""
        return self.b.and_(truths, self.there) if self.there else truths

    def count(self, truths: Any) -> Any:
        """Return how many of several truth values are true."""
        if self.width == 1:
            return self.b.zext(truths, LONG)
        return self.b.zext(self.b.ctpop(self.b.bitcast(truths, ir.IntType(self.width))), LONG)

    def _place(self, array: Any, index: Any) -> Tuple[Any, int]:
        kind = array.type.pointee
        pointer = self.b.bitcast(self.b.gep(array, [index]), self.of(kind).as_pointer())
        return pointer, 8 if kind == DOUBLE else 4

    def number(self, value: Any) -> Any:
        """Return a truth value as 1 or 0; all else as it is."""
        return self.b.uitofp(value, self.of(FLOAT)) if value.type == self.of(BIT) else value

    def bits(self, value: Any) -> Any:
        """Return the bits of values, as integers."""
        return self.b.bitcast(value, self.of(INT))

    def floats(self, bits: Any) -> Any:
        """Return the values that have these bits."""
        return self.b.bitcast(bits, self.of(FLOAT))

    def opaque(self, value: Any) -> Any:
        """Return a value of which the compiler does not know how it came about.

        LLVM turns ``w - fma(a, b, c)`` into ``w + fma(-a, b, -c)`` on x86, which is another zero
        where the sum is 0: w = -0 then becomes +0. It cannot where the bits pass through this.
        """
        return self.floats(self.b.xor(self.bits(value), self._nothing))

    def _call(self, name: str, *operands: Any) -> Any:
        kind = operands[0].type
        letter = {FLOAT: "f32", DOUBLE: "f64"}[kind if self.width == 1 else kind.element]
        name = f"{name}.{'' if self.width == 1 else f'v{self.width}'}{letter}"
        return self._intrinsic(name, kind, operands)

    def _intrinsic(self, name: str, kind: Any, operands: Sequence[Any]) -> Any:
        """Call one of LLVM's own functions; declare it where that was not done yet."""
        name, module = f"llvm.{name}", self.b.module
        function_type = ir.FunctionType(kind, [operand.type for operand in operands])
        known = module.globals.get(name)
        return self.b.call(known or ir.Function(module, function_type, name), operands)

    def fma(self, a: Any, x: Any, y: Any) -> Any:
        """a x + y, rounded once; of a processor that cannot, in float64, and so nearly always."""
        if self.how.has_fma:
            return self._call("fma", a, x, y)
        a, x, y = (self.b.fpext(operand, self.of(DOUBLE)) for operand in (a, x, y))
        return self.b.fptrunc(self.b.fadd(self.b.fmul(a, x), y), self.of(FLOAT))

    def add_square(self, x: Any, total: Any) -> Any:
        """Return a total, in float64, with the square of x.

        A float32's square is exact in float64: rounded once or twice, the sum is the same.
        """
        wide = self.b.fpext(x, self.of(DOUBLE))
        if self.how.has_fma:
            return self._call("fma", wide, wide, total)
        return self.b.fadd(self.b.fmul(wide, wide), total)

    # -- the operations of a program --------------------------------------------------------------

    def add(self, a, b):
        return self.b.fadd(a, b)

    def subtract(self, a, b):
        return self.b.fsub(a, self.opaque(b))

    def multiply(self, a, b):
        return self.b.fmul(a, b)

    def divide(self, a, b):
        return self.b.fdiv(a, b)

    def negative(self, x):
        return self.floats(self.b.xor(self.bits(self.opaque(x)), self.constant(-(2**31), INT)))

    def sqrt(self, x):
        return self._call("sqrt", x)

    def square(self, x):
        return self.b.fmul(x, x)

    def absolute(self, x):
        return self._call("fabs", x)

    def greater(self, a, b):
        return self.b.fcmp_ordered(">", a, b)

    def greater_equal(self, a, b):
        return self.b.fcmp_ordered(">=", a, b)

    def less(self, a, b):
        return self.b.fcmp_ordered("<", a, b)

    def less_equal(self, a, b):
        return self.b.fcmp_ordered("<=", a, b)

    def equal(self, a, b):
        return self.b.fcmp_ordered("==", a, b)

    def not_equal(self, a, b):
        return self.b.fcmp_unordered("!=", a, b)

    def where(self, condition, one, other):
        if condition.type != self.of(BIT):
            condition = self.not_equal(condition, self.constant(0))
        return self.b.select(condition, one, other)

    def _is_nan(self, x):
        return self.b.fcmp_unordered("uno", x, x)

    def maximum(self, a, b):
        """NumPy's maximum: not a number where either is none."""
        first = self.greater_equal(a, b) if _takes_first(np.maximum) else self.greater(a, b)
        return self.b.select(self.b.or_(first, self._is_nan(a)), a, b)

    def minimum(self, a, b):
        """NumPy's minimum."""
        first = self.less_equal(a, b) if _takes_first(np.minimum) else self.less(a, b)
        return self.b.select(self.b.or_(first, self._is_nan(a)), a, b)

    def caffe_sign(self, x):
        """Caffe's sign: 0 of either zero, and of what is not a number."""
        one, zero, minus_one = map(self.constant, (1, 0, -1))
        negative = self.b.select(self.less(x, zero), minus_one, zero)
        return self.b.select(self.greater(x, zero), one, negative)

    def sign(self, x):
        """NumPy's sign: not a number where x is none."""
        return self.b.select(self._is_nan(x), x, self.caffe_sign(x))

    def multiply_add(self, a, x, y):
        """a x + y, as this BLAS rounds it."""
        return self.fma(a, x, y) if self.how.rounds_once else self.b.fadd(self.b.fmul(a, x), y)

    def axpy(self, a, x, y):
        """A BLAS's axpy, which does nothing where a is 0."""
        return self.where(a, self.multiply_add(a, x, y), y)

    def scal(self, a, x):
        """A BLAS's scal, which sets to 0 where a is 0, and OpenBLAS's where a is not a number."""
        zero = self.constant(0)
        return self.b.select(self.b.fcmp_ordered("!=", a, zero), self.b.fmul(a, x), zero)

    def powx_2(self, x):
        """x to the power of 2, correctly rounded."""
        return self.square(x)

    def powx_half(self, x):
        """x to the power of a half, correctly rounded; of -0 that is 0."""
        return self.b.fadd(self.sqrt(x), self.constant(0))

    def doubtful(self, powers: Sequence[Tuple[str, Any, Any]]) -> Any:
        """Return which values depend on powers that libm may round otherwise: one in 250.

        Args:
            powers: the name, the operand and the result of each.
        """
        doubts = [getattr(self, f"_doubt_{name}")(x, power) for name, x, power in powers]
        return self._is_nonzero(reduce(self.b.or_, doubts))

    # Doubts are integers, which are not 0 where there is a doubt: as many comparisons would be in
    # the way of the multiplications.

    def _doubt_powx_2(self, x, square):
        """Return where libm may round the square of x otherwise, or it overflows."""
        residual = self.fma(x, x, self.b.fneg(square))
        further = self.fma(residual, self.constant(_FURTHER), square)
        moved = self.b.xor(self.bits(further), self.bits(square))
        return self.b.or_(moved, self._sign(self._tiny(square)))

    def _doubt_powx_half(self, x, root):
        """Return where libm may round the root of x otherwise, or x is negative."""
        b, residual = self.b, self.fma(self.b.fneg(root), root, x)
        near = b.fmul(self.constant(_NEAR_ROOT), b.fmul(root, self._unit(root)))
        beyond = self.bits(b.fsub(near, self.absolute(residual)))
        return self._sign(b.or_(b.or_(beyond, self.bits(x)), self._tiny(x)))

    def _unit(self, x):
        """Return the power of 2 below x."""
        return self.floats(self.b.and_(self.bits(x), self.constant(_EXPONENT, INT)))

    def _tiny(self, x):
        """Return integers, negative where x, which is not, is tiny and not 0."""
        b, bits = self.b, self.bits(x)
        below = b.sub(bits, self.constant(_TINY, INT))
        return b.and_(below, b.not_(b.sub(bits, self.constant(1, INT))))

    def _sign(self, integers):
        return self.b.and_(integers, self.constant(-(2**31), INT))

    def _is_nonzero(self, integers):
        return self.b.icmp_unsigned("!=", integers, self.constant(0, INT))


class Part(Values):
    """The first values of a vector, which ends before the last.

    Args:
        b, how, nothing: see ``Values``.
        count: how many there are.
    """

    def __init__(self, b: Any, how: Arithmetic, nothing: Any, count: Any) -> None:
        super().__init__(b, LANES, how, nothing)
        lanes = ir.Constant(self.of(INT), list(range(LANES)))
        self.there = b.icmp_signed("<", lanes, self.all_of(b.trunc(count, INT)))

    def load(self, array, index):
        place, align = self._place(array, index)
        nothing = self.constant(0, array.type.pointee)
        return self._masked("load", nothing.type, [place, align, self.there, nothing])

    def store(self, value, array, index):
        place, align = self._place(array, index)
        self._masked("store", VOID, [value, place, align, self.there])

    def _masked(self, name, kind, operands):
        operands = [ir.Constant(INT, one) if isinstance(one, int) else one for one in operands]
        name = f"masked.{name}.v{self.width}f32.p0v{self.width}f32"
        return self._intrinsic(name, kind, operands)
