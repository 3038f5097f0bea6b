"""The kernels in plain NumPy: the readable reference.

They compute what Caffe's do but round otherwise: NumPy multiplies, rounds, adds and rounds again
where a BLAS with fused multiply-add rounds once. After one update that is an ulp here and there;
training amplifies it. For the native solver's bits take the ``native`` kernels.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Optional, Sequence

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.statistics import Statistics, statistics


class NumpyKernels:
    """Vector operations on flat float32 arrays. Scalars are ``np.float32``.

    ``out`` may be one of the operands.
    """

    name = "numpy"
    exact = False

    def __init__(self) -> None:
        self._scratch: Dict[int, Floats] = {}
        # The rules whose fused pass cannot be used here, and why; under "rules", why none can.
        self.unfused: Dict[str, str] = {}

    def scratch(self, like: Floats, number: int = 0) -> Floats:
        """Return an array as long as another, for intermediate results; its content is anything.

        The same number gives the same memory again: it is a register, not a variable.
        """
        register = self._scratch.get(number)
        if register is None or register.size < like.size:
            register = self._scratch[number] = np.empty(like.size, np.float32)
        return register[: like.size]

    def pin(self, arrays: Iterable[Floats]) -> None:
        """Be told of arrays that stay where they are, and may be remembered by where that is."""

    def axpy(self, a: np.float32, x: Floats, y: Floats) -> None:
        """y = a x + y"""
        y += a * x

    def axpby(self, a: np.float32, x: Floats, b: np.float32, y: Floats) -> None:
        """y = a x + b y"""
        self.scal(b, y)
        self.axpy(a, x, y)

    def scal(self, a: np.float32, x: Floats) -> None:
        """x = a x"""
        x *= a

    def scale(self, a: np.float32, x: Floats, out: Floats) -> None:
        """out = a x"""
        np.multiply(a, x, out=out)

    def copy(self, x: Floats, out: Floats) -> None:
        """out = x"""
        np.copyto(out, x)

    def add(self, x: Floats, y: Floats, out: Floats) -> None:
        """out = x + y"""
        np.add(x, y, out=out)

    def add_scalar(self, a: np.float32, x: Floats) -> None:
        """x = x + a"""
        x += a

    def mul(self, x: Floats, y: Floats, out: Floats) -> None:
        """out = x y"""
        np.multiply(x, y, out=out)

    def div(self, x: Floats, y: Floats, out: Floats) -> None:
        """out = x / y"""
        np.divide(x, y, out=out)

    def powx(self, x: Floats, exponent: np.float32, out: Floats) -> None:
        """out = x to the power of exponent"""
        np.power(x, exponent, out=out)

    def set(self, a: np.float32, x: Floats) -> None:
        """x = a"""
        x.fill(a)

    def sign(self, x: Floats, out: Floats) -> None:
        """out = -1, 0 or 1"""
        np.sign(x, out=out)

    def dot(self, x: Floats, y: Floats) -> np.float32:
        """Return the sum of x y."""
        return np.float32(np.dot(x, y))

    def statistics(self, x: Floats) -> Statistics:
        """Return the figures of x."""
        return statistics(x)

    def fuse(
        self, name: str, rule: Any, parameters: Sequence[Any], checked: bool = False
    ) -> Optional[Any]:
        """Return a fused update of these parameters under a rule, where these kernels have one.

        Args:
            name: what the rule is called in ``unfused``.
            rule: its ``update`` and ``slots``.
            parameters: all with the same ``regularization_type``.
            checked: whether values of the update that are not finite are counted.
        """
        return None
