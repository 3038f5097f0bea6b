"""The kernels in plain NumPy: the readable reference.

They compute what Caffe's do but round otherwise: NumPy multiplies, rounds, adds and rounds again
where a BLAS with fused multiply-add rounds once. After one update that is an ulp here and there;
training amplifies it. For the native solver's bits take the ``native`` kernels.
"""

from __future__ import annotations

import numpy as np


class NumpyKernels:
    """Vector operations on flat float32 arrays. Scalars are ``np.float32``."""

    name = "numpy"
    exact = False

    def axpy(self, a: np.float32, x: np.ndarray, y: np.ndarray) -> None:
        """y = a x + y"""
        y += a * x

    def axpby(self, a: np.float32, x: np.ndarray, b: np.float32, y: np.ndarray) -> None:
        """y = a x + b y"""
        self.scal(b, y)
        self.axpy(a, x, y)

    def scal(self, a: np.float32, x: np.ndarray) -> None:
        """x = a x"""
        x *= a

    def copy(self, x: np.ndarray, y: np.ndarray) -> None:
        """y = x"""
        np.copyto(y, x)

    def sign(self, x: np.ndarray) -> np.ndarray:
        """Return -1, 0 or 1 for each element."""
        return np.sign(x)

    def dot(self, x: np.ndarray, y: np.ndarray) -> np.float32:
        """Return the sum of x y."""
        return np.float32(np.dot(x, y))
