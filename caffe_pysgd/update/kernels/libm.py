"""The C library's own mathematics, for results that must have the native solver's bits.

NumPy computes float32 powers and exponentials with code of its own, and Python's ``math`` raises
where C returns inf or nan; Caffe calls libm. Each function takes and returns what its C namesake
does: ``powf`` and ``expf`` float32, ``pow`` and ``sqrt`` double.
"""

from __future__ import annotations

import ctypes
from typing import Callable

import numpy as np

_LIBRARY = ctypes.CDLL("libm.so.6")


def _function(name: str, c_type: type, arguments: int) -> Callable[..., float]:
    function = getattr(_LIBRARY, name)
    function.restype = c_type
    function.argtypes = [c_type] * arguments
    return function  # type: ignore[no-any-return]


_powf = _function("powf", ctypes.c_float, 2)
_expf = _function("expf", ctypes.c_float, 1)
pow = _function("pow", ctypes.c_double, 2)
sqrt = _function("sqrt", ctypes.c_double, 1)


def powf(base: np.float32, exponent: np.float32) -> np.float32:
    """Return ``base`` to the power of ``exponent`` as C's ``powf`` rounds it."""
    return np.float32(_powf(base, exponent))


def expf(exponent: np.float32) -> np.float32:
    """Return e to the power of ``exponent`` as C's ``expf`` rounds it."""
    return np.float32(_expf(exponent))


def address_of_powf() -> int:
    """Return where libm's ``powf`` is, for compiled code that calls it."""
    return ctypes.cast(_LIBRARY.powf, ctypes.c_void_p).value or 0
