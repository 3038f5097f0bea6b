"""The vector operations that an update is made of, under the names that Caffe gives them.

The set is that of Caffe's ``include/caffe/util/math_functions.hpp``, in float32 on flat arrays:
an update written with them is Caffe's update, and whoever computes them decides the bits.
"""

from caffe_pysgd.update.kernels.caffe import CaffeKernels, MissingSymbols
from caffe_pysgd.update.kernels.numpy import NumpyKernels

Kernels = NumpyKernels

__all__ = ["CaffeKernels", "Kernels", "MissingSymbols", "NumpyKernels"]
