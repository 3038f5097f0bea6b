"""What a pass does to sixteen values at once, or to a single one, in LLVM's own words.

Nothing is left for an optimizer to find: a vector is an LLVM vector, which becomes one instruction
where the processor's registers are as long, and some where they are shorter. Every operation is
rounded as IEEE 754 says. Imports llvmlite, so it is imported only where something is compiled.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, NamedTuple, Sequence, Tuple

import numpy as np
from llvmlite import ir

from caffe_pysgd.update.fused.probe import BAND
from caffe_pysgd.update.statistics import LANES

FLOAT, DOUBLE, VOID = ir.FloatType(), ir.DoubleType(), ir.VoidType()
BIT, INT, LONG = (ir.IntType(bits) for bits in (1, 32, 64))
FLOATS = FLOAT.as_pointer()  # typed pointers: LLVM reads these, too, since it has others
POWF = ir.FunctionType(FLOAT, [FLOAT, FLOAT])

# libm's powf is not correctly rounded, but it is nearly: over all floats, powf(x, 1/2) differs from
# the correctly rounded square root, and powf(x, 2) from the correctly rounded x x, only where the
# exact result lies within 1/588 ulp of the midpoint between two floats
# (tests/native/test_guard_band.py goes through all of them). So the rounded result is libm's unless
# its residual, which a fused multiply-add gives exactly, says that a midpoint is closer than this:
_HALF_ULP = 2.0**-24  # of a number in [1, 2)
_EXPONENT = 0x7F800000
_TINY, _HUGE = 2.0**-100, 2.0**120  # beyond, residuals underflow, or results overflow
_NEAR_SQUARE = float(np.float32((1 - 2 * BAND) * _HALF_ULP))
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


def long(value: int) -> Any:
    """Return an integer."""
    return ir.Constant(LONG, value)


def past_whole(b: Any, first: Any, past: Any) -> Any:
    """Return how far from first one comes in steps of ``LANES`` without going past."""
    return b.add(first, b.and_(b.sub(past, first), long(-LANES)))


@contextmanager
def loop(b: Any, first: Any, past: Any, step: int, sums: Sequence[Any] = ()) -> Iterator[Any]:
    """Do what follows for all integers from first to past.

    Yield the integer and a list of sums so far, in which the body leaves the next ones. After the
    loop the list has the last.
    """
    before = b.block
    head, body, end = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    index, *carried = (b.phi(first_value.type) for first_value in (first, *sums))
    for phi, value in zip((index, *carried), (first, *sums)):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_signed("<", index, past), body, end)
    b.position_at_end(body)
    so_far = list(carried)
    yield index, so_far
    for phi, value in zip((index, *carried), (b.add(index, long(step)), *so_far)):
        phi.add_incoming(value, b.block)
    so_far[:] = carried
    b.branch(head)
    b.position_at_end(end)


@contextmanager
def loop_over_bits(b: Any, word: Any) -> Iterator[Any]:
    """Do what follows for the number of each bit that is set in a word, which is not 0."""
    before, body, end = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(body)
    b.position_at_end(body)
    bits = b.phi(word.type)
    bits.add_incoming(word, before)
    yield b.cttz(bits, BIT(1))
    left = b.and_(bits, b.sub(bits, word.type(1)))
    bits.add_incoming(left, b.block)
    b.cbranch(b.icmp_unsigned("!=", left, word.type(0)), body, end)
    b.position_at_end(end)


class Values:
    """``width`` values that are computed alike; the operations have their names in a program.

    Args:
        b: llvmlite's builder.
        width: ``LANES``, or 1.
        nothing: 0, loaded from memory: an integer that a compiler does not know to be 0.
        powf: libm's function.

    Attributes:
        marks: which of several values depend on powers that libm may round otherwise: these have to
            be computed again, one by one. None where that cannot be.
    """

    def __init__(
        self, b: Any, width: int, how: Arithmetic, nothing: Any = None, powf: Any = None
    ) -> None:
        self.b, self.width, self.how, self._powf = b, width, how, powf
        self._nothing = self.all_of(nothing) if nothing else None
        self.marks: Any = None

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
        name = "llvm.prefetch.p0i8"
        kinds = [operand.type for operand in operands]
        known = self.b.module.globals.get(name)
        self.b.call(
            known or ir.Function(self.b.module, ir.FunctionType(VOID, kinds), name), operands
        )

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
        name = f"llvm.{name}.{'' if self.width == 1 else f'v{self.width}'}{letter}"
        known = self.b.module.globals.get(name)
        function_type = ir.FunctionType(kind, [kind] * len(operands))
        return self.b.call(known or ir.Function(self.b.module, function_type, name), operands)

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
        """x to the power of 2."""
        return self._power(x, 2, self.square(x), self._near_square)

    def powx_half(self, x):
        """x to the power of a half; of -0 that is 0."""
        return self._power(x, 0.5, self.b.fadd(self.sqrt(x), self.constant(0)), self._near_root)

    def _near_square(self, x, square):
        """Return whether libm may round the square of x otherwise than to ``square``."""
        residual = self.fma(x, x, self.b.fneg(square))
        near = self.b.fmul(self.constant(_NEAR_SQUARE), self._unit(square))
        return self.b.or_(
            self.b.or_(self.greater(self.absolute(residual), near), self._is_tiny(square, x)),
            self.greater(square, self.constant(_HUGE)),
        )

    def _near_root(self, x, root):
        """Return whether libm may round the square root of x otherwise than to ``root``."""
        residual = self.fma(self.b.fneg(root), root, x)
        near = self.b.fmul(self.constant(_NEAR_ROOT), self.b.fmul(root, self._unit(root)))
        return self.b.or_(self.greater(self.absolute(residual), near), self._is_tiny(x, x))

    def _unit(self, x):
        """Return the power of 2 below x."""
        return self.floats(self.b.and_(self.bits(x), self.constant(_EXPONENT, INT)))

    def _is_tiny(self, result, x):
        small = self.less(result, self.constant(_TINY))
        return self.b.and_(small, self.not_equal(x, self.constant(0)))

    def _power(self, x, exponent, rounded, near):
        """Return a power; mark it where libm's may be another one: once in 200 times."""
        if not self.how.exact:
            return rounded
        b, marks = self.b, near(x, rounded)
        if self.width > 1:
            self.marks = b.or_(self.marks, marks) if self.marks else marks
            return rounded
        before = b.block
        with b.if_then(marks):
            asked, power = b.block, b.call(self._powf, [x, self.constant(exponent)])
        result = b.phi(FLOAT)
        result.add_incoming(rounded, before)
        result.add_incoming(power, asked)
        return result
