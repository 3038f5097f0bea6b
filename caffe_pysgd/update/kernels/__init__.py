"""The vector operations that an update is made of, under the names that Caffe gives them.

The set is that of Caffe's ``include/caffe/util/math_functions.hpp``, in float32 on flat arrays:
an update written with them is Caffe's update, and whoever computes them decides the bits.
"""

from __future__ import annotations

from typing import Optional

from caffe_pysgd.errors import UserError
from caffe_pysgd.update.kernels.fused import FusedKernels, FusedUpdate, Leaves, Untraceable
from caffe_pysgd.update.kernels.native import MissingSymbols, NativeKernels
from caffe_pysgd.update.kernels.numpy import NumpyKernels

Kernels = NumpyKernels
NAMES = ("auto", "fused", "native", "numpy")


def make_kernels(name: str, library_path: Optional[str], exact: bool = True) -> Kernels:
    """Return the kernels of that name.

    Args:
        name: ``numpy``, ``native``, ``fused``, or ``auto`` for the fastest with the native bits.
        library_path: a shared library that exports Caffe's mathematics, or None.
        exact: whether ``fused`` (and ``auto``, if that comes to it) has the native bits, too, where
            a rule takes powers.

    Raises:
        MissingSymbols: the library does not export what ``native`` or ``fused`` takes.
        UserError: ``fused`` cannot be had here.
        ValueError: there are no kernels of that name.
    """
    if name == "numpy":
        return NumpyKernels()
    if name == "native":
        return NativeKernels(library_path)
    if name == "fused":
        return FusedKernels(library_path, exact)
    if name == "auto":
        return _fastest(library_path, exact)
    raise ValueError(f"kernels: found '{name}', allowed are {', '.join(NAMES)}")


def _fastest(library_path: Optional[str], exact: bool) -> Kernels:
    try:
        return FusedKernels(library_path, exact)
    except UserError:
        pass
    try:
        return NativeKernels(library_path)
    except MissingSymbols:
        return NumpyKernels()


__all__ = [
    "NAMES",
    "FusedKernels",
    "FusedUpdate",
    "Kernels",
    "Leaves",
    "MissingSymbols",
    "NativeKernels",
    "NumpyKernels",
    "Untraceable",
    "make_kernels",
]
