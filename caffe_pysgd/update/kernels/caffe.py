"""The kernels that Caffe itself uses, called where they are: in its shared library.

libcaffe exports its mathematics (``src/caffe/util/math_functions.cpp``). An update that is composed
of them in the native solver's order has the native solver's bits, whatever BLAS that build has.
ctypes releases the GIL during each call.
"""

from __future__ import annotations

import ctypes
from typing import Any, Dict, Iterable, Optional, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import UserError
from caffe_pysgd.update.kernels.numpy import NumpyKernels

_INT, _FLOAT, _ARRAY = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_UNARY, _BINARY = (_INT, _ARRAY, _ARRAY), (_INT, _ARRAY, _ARRAY, _ARRAY)

# name: (mangled name of the instance for float, result, arguments)
_SYMBOLS = {
    "axpy": ("_ZN5caffe10caffe_axpyIfEEviT_PKS1_PS1_", None, (_INT, _FLOAT, _ARRAY, _ARRAY)),
    "axpby": (
        "_ZN5caffe15caffe_cpu_axpbyIfEEviT_PKS1_S1_PS1_",
        None,
        (_INT, _FLOAT, _ARRAY, _FLOAT, _ARRAY),
    ),
    "scal": ("_ZN5caffe10caffe_scalIfEEviT_PS1_", None, (_INT, _FLOAT, _ARRAY)),
    "scale": ("_ZN5caffe15caffe_cpu_scaleIfEEviT_PKS1_PS1_", None, (_INT, _FLOAT, _ARRAY, _ARRAY)),
    "add": ("_ZN5caffe9caffe_addIfEEviPKT_S3_PS1_", None, _BINARY),
    "add_scalar": ("_ZN5caffe16caffe_add_scalarIfEEviT_PS1_", None, (_INT, _FLOAT, _ARRAY)),
    "mul": ("_ZN5caffe9caffe_mulIfEEviPKT_S3_PS1_", None, _BINARY),
    "div": ("_ZN5caffe9caffe_divIfEEviPKT_S3_PS1_", None, _BINARY),
    "powx": ("_ZN5caffe10caffe_powxIfEEviPKT_S1_PS1_", None, (_INT, _ARRAY, _FLOAT, _ARRAY)),
    "set": ("_ZN5caffe9caffe_setIfEEviT_PS1_", None, (_INT, _FLOAT, _ARRAY)),
    "sign": ("_ZN5caffe14caffe_cpu_signIfEEviPKT_PS1_", None, _UNARY),
    "dot": ("_ZN5caffe13caffe_cpu_dotIfEET_iPKS1_S3_", _FLOAT, _UNARY),
}


class MissingSymbols(UserError):
    """The library cannot be loaded or does not export Caffe's mathematics (a static libcaffe)."""


class CaffeKernels(NumpyKernels):
    """Caffe's own vector operations, through ctypes.

    Args:
        library_path: a shared library through which Caffe's symbols resolve, such as pycaffe's
            ``_caffe.so`` or ``libcaffe.so``.

    Raises:
        MissingSymbols: it does not load, or a symbol is not there.
    """

    name = "native"
    exact = True

    def __init__(self, library_path: Optional[str]) -> None:
        super().__init__()
        self._pinned: Dict[int, Tuple[Floats, int]] = {}
        if library_path is None:
            raise MissingSymbols("kernels: native: no Caffe library was given")
        try:
            library = ctypes.CDLL(library_path)
            self._caffe = {name: _bind(library, *symbol) for name, symbol in _SYMBOLS.items()}
        except (OSError, AttributeError) as error:
            raise MissingSymbols(
                f"kernels: native: this Caffe does not export its mathematics ({error}); take numpy"
            ) from error

    def pin(self, arrays: Iterable[Floats]) -> None:
        self._pinned.update((id(array), (array, _address(array))) for array in arrays)

    def _address(self, array: Floats) -> int:
        pinned = self._pinned.get(id(array))
        return pinned[1] if pinned else _address(array)

    def axpy(self, a: np.float32, x: Floats, y: Floats) -> None:
        self._caffe["axpy"](x.size, a, self._address(x), self._address(y))

    def axpby(self, a: np.float32, x: Floats, b: np.float32, y: Floats) -> None:
        self._caffe["axpby"](x.size, a, self._address(x), b, self._address(y))

    def scal(self, a: np.float32, x: Floats) -> None:
        self._caffe["scal"](x.size, a, self._address(x))

    def scale(self, a: np.float32, x: Floats, out: Floats) -> None:
        self._caffe["scale"](x.size, a, self._address(x), self._address(out))

    def add(self, x: Floats, y: Floats, out: Floats) -> None:
        self._caffe["add"](x.size, self._address(x), self._address(y), self._address(out))

    def add_scalar(self, a: np.float32, x: Floats) -> None:
        self._caffe["add_scalar"](x.size, a, self._address(x))

    def mul(self, x: Floats, y: Floats, out: Floats) -> None:
        self._caffe["mul"](x.size, self._address(x), self._address(y), self._address(out))

    def div(self, x: Floats, y: Floats, out: Floats) -> None:
        self._caffe["div"](x.size, self._address(x), self._address(y), self._address(out))

    def powx(self, x: Floats, exponent: np.float32, out: Floats) -> None:
        self._caffe["powx"](x.size, self._address(x), exponent, self._address(out))

    def set(self, a: np.float32, x: Floats) -> None:
        self._caffe["set"](x.size, a, self._address(x))

    def sign(self, x: Floats, out: Floats) -> None:
        self._caffe["sign"](x.size, self._address(x), self._address(out))

    def dot(self, x: Floats, y: Floats) -> np.float32:
        return np.float32(self._caffe["dot"](x.size, self._address(x), self._address(y)))


def _bind(library: ctypes.CDLL, symbol: str, result: Any, arguments: Any) -> Any:
    function = getattr(library, symbol)
    function.restype = result
    function.argtypes = arguments
    return function


def _address(array: Floats) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
