"""The kind of array that everything here computes with, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    """An array of float32."""
else:  # NumPy 1.19, of Debian's Caffe, has no such types
    Floats = np.ndarray
