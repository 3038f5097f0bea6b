"""The vector operations that an update is made of, under the names that Caffe gives them.

The set is that of Caffe's ``include/caffe/util/math_functions.hpp``, in float32 on flat arrays:
an update written with them is Caffe's update, and whoever computes them decides the bits.
"""

from __future__ import annotations

from typing import Optional

from caffe_pysgd.update.kernels.native import MissingSymbols, NativeKernels
from caffe_pysgd.update.kernels.numpy import NumpyKernels

Kernels = NumpyKernels
NAMES = ("auto", "native", "numpy")


def make_kernels(name: str, library_path: Optional[str]) -> Kernels:
    """Return the kernels of that name.

    Args:
        name: ``numpy``, ``native``, or ``auto`` for the fastest with the native bits.
        library_path: a shared library that exports Caffe's mathematics, or None.

    Raises:
        MissingSymbols: ``native`` was asked for and the library does not export what it takes.
        ValueError: there are no kernels of that name.
    """
    if name == "numpy":
        return NumpyKernels()
    if name == "native":
        return NativeKernels(library_path)
    if name == "auto":
        try:
            return NativeKernels(library_path)
        except MissingSymbols:
            return NumpyKernels()
    raise ValueError(f"kernels: found '{name}', allowed are {', '.join(NAMES)}")


__all__ = ["NAMES", "Kernels", "MissingSymbols", "NativeKernels", "NumpyKernels", "make_kernels"]
