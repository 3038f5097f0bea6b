"""What the fused kernels do to one value, and the operations that LLVM has and Python has not.

Imports numba, so it is imported only where something has to be compiled.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from caffe_pysgd.update.fused.probe import BAND

F = np.float32
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)


@intrinsic
def fma(context: Any, a: Any, x: Any, y: Any) -> Any:
    """a x + y, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOAT, [_FLOAT] * 3)
        function = builder.module.declare_intrinsic("llvm.fma", [_FLOAT], fnty=kind)
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def bits_of(context: Any, x: Any) -> Any:
    """The bits of a float32, as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _INT)

    return types.int32(types.float32), generate


@intrinsic
def float_of(context: Any, bits: Any) -> Any:
    """The float32 that these bits are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), generate


@intrinsic
def call_powf(context: Any, powf: Any, x: Any, exponent: Any) -> Any:
    """x to the power of exponent, by the function at this address: libm's, as Caffe calls it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOAT, [_FLOAT, _FLOAT]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])

    return types.float32(types.int64, types.float32, types.float32), generate


@intrinsic
def first_bit(context: Any, word: Any) -> Any:
    """The number of the lowest bit that is set in a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def pointer_to(kind: Any) -> Any:
    """Return a function that takes an address for a pointer to values of that kind."""

    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        signature = types.CPointer(kind)(types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, generate

    return pointer


# libm's powf is not correctly rounded, but it is nearly: over all floats, powf(x, 1/2) differs from
# the correctly rounded square root, and powf(x, 2) from the correctly rounded x x, only where the
# exact result lies within 1/588 ulp of the midpoint between two floats
# (tests/update/test_guard_band.py goes through all of them). So the rounded result is libm's unless
# its residual, which a fused multiply-add gives exactly, says that a midpoint is closer than this:
_HALF_ULP = F(2.0**-24)  # of a number in [1, 2)
_EXPONENT = np.int32(0x7F800000)
_TINY, _HUGE = F(2.0**-100), F(2.0**120)  # beyond, residuals underflow, or results overflow
_NEAR_SQUARE = F((1 - 2 * BAND) * _HALF_ULP)
_NEAR_ROOT = F(2 * (1 - 2 * BAND) * _HALF_ULP)  # the residual is r^2 - x: twice r times the error
_ZERO = F(0)


@njit(error_model="numpy")
def square(x):
    """x x, correctly rounded."""
    return x * x


@njit(error_model="numpy")
def root(x):
    """The square root of x, correctly rounded; of -0 it is 0, as powf has it."""
    return np.sqrt(x) + _ZERO


@njit(error_model="numpy")
def near_midpoint_root(x, root):
    """Return whether libm may round the square root of x otherwise than to ``root``."""
    residual = fma(-root, root, x)
    ulps = float_of(np.int32(bits_of(root) & _EXPONENT))
    return (abs(residual) > _NEAR_ROOT * (root * ulps)) | ((x < _TINY) & (x != _ZERO))


@njit(error_model="numpy")
def near_midpoint_square(x, square):
    """Return whether libm may round the square of x otherwise than to ``square``."""
    residual = fma(x, x, -square)
    ulps = float_of(np.int32(bits_of(square) & _EXPONENT))
    outside = ((square < _TINY) & (x != _ZERO)) | (square > _HUGE)
    return (abs(residual) > _NEAR_SQUARE * ulps) | outside


@njit(error_model="numpy")
def multiply_and_add(a, x, y):
    """a x + y, rounded twice."""
    return a * x + y


def axpy_of(multiply_add: Any) -> Any:
    """Return a BLAS's axpy that rounds as ``multiply_add``; it does nothing where a is 0."""

    @njit(error_model="numpy")
    def axpy(a, x, y):
        return multiply_add(a, x, y) if a != _ZERO else y

    return axpy


@njit(error_model="numpy")
def scal(a, x):
    """A BLAS's scal, which sets to 0 where a is 0, and OpenBLAS's where a is not a number."""
    return a * x if (a > _ZERO) | (a < _ZERO) else _ZERO


@njit(error_model="numpy")
def caffe_sign(x):
    """Caffe's sign: 0 of either zero, and of what is not a number."""
    return F(x > 0) - F(x < 0)


@njit(error_model="numpy")
def sign(x):
    """NumPy's sign: not a number where x is none."""
    return x if x != x else caffe_sign(x)


@njit(error_model="numpy")
def maximum(a, b):
    """NumPy's maximum: not a number where either is none."""
    return a if (a >= b) | (a != a) else b


@njit(error_model="numpy")
def minimum(a, b):
    """NumPy's minimum."""
    return a if (a <= b) | (a != a) else b


@njit(error_model="numpy")
def opaque(x, nothing):
    """x, as a value of which the compiler does not know how it came about.

    LLVM turns ``w - fma(a, b, c)`` into ``w + fma(-a, b, -c)`` on x86, which is another zero where
    the sum is 0: w = -0 then becomes +0. It cannot where the bits pass through this.

    Args:
        nothing: 0, loaded from memory.
    """
    return float_of(bits_of(x) ^ nothing)
