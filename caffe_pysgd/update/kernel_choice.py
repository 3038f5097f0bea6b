"""Which kernels compute the update: by name, or the fastest with Caffe's bits."""

from __future__ import annotations

from typing import Optional

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.update.fused import FusedKernels
from caffe_pysgd.update.kernels import CaffeKernels, Kernels, MissingSymbols, NumpyKernels

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
        SettingError: there are no kernels of that name.
    """
    if name == "numpy":
        return NumpyKernels()
    if name == "native":
        return CaffeKernels(library_path)
    if name == "fused":
        return FusedKernels(library_path, exact)
    if name == "auto":
        return _fastest(library_path, exact)
    raise SettingError("kernels", name, one_of(NAMES, name))


def _fastest(library_path: Optional[str], exact: bool) -> Kernels:
    try:
        return FusedKernels(library_path, exact)
    except UserError as error:
        reason = str(error)
    kernels: Kernels
    try:
        kernels = CaffeKernels(library_path)
    except MissingSymbols:
        kernels = NumpyKernels()
    kernels.unfused["rules"] = reason
    return kernels
