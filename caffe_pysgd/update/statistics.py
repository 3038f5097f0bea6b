"""The figures that describe an array: norm, mean, extremes, zeros, non-finite values.

The order of the additions is part of the definition, so that the figures have the same bits whoever
computes them, on however many threads: element ``i`` of a chunk is added to lane ``i % 16``, in
float64; then the lanes are added up, then the chunks. This file is the readable reference; the
fused kernels compute the same in the pass over memory that does the update.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from caffe_pysgd.arrays import Floats

CHUNK, LANES = 1 << 16, 16


class Statistics(NamedTuple):
    """Figures of one array; all but the counts are over its finite values, and 0 without any.

    Attributes:
        l2: the L2 norm.
        mean, min, max: what they say.
        zeros: how many values are 0, of either sign.
        nonfinite: how many values are infinite or not a number.
    """

    l2: float
    mean: float
    min: float
    max: float
    zeros: int
    nonfinite: int


def statistics(array: Floats) -> Statistics:
    """Return the figures of a flat float32 array."""
    finite = np.isfinite(array)
    nonfinite = int(array.size - np.count_nonzero(finite))
    sumsq = total = 0.0
    for start in range(0, array.size, CHUNK):
        chunk = array[start : start + CHUNK].astype(np.float64)
        if nonfinite:
            chunk[~finite[start : start + CHUNK]] = 0
        total += _in_lanes(chunk)
        sumsq += _in_lanes(chunk * chunk)
    values = array[finite] if nonfinite else array
    if not values.size:
        return Statistics(0.0, 0.0, 0.0, 0.0, 0, nonfinite)
    zeros = int(values.size - np.count_nonzero(values))
    low, high = float(values.min()), float(values.max())
    return Statistics(math.sqrt(sumsq), total / values.size, low, high, zeros, nonfinite)


def norm(array: Floats) -> np.float32:
    """Return the L2 norm of a flat float32 array; not finite if any value is not."""
    sumsq = 0.0
    for start in range(0, array.size, CHUNK):
        chunk = array[start : start + CHUNK].astype(np.float64)
        sumsq += _in_lanes(chunk * chunk)
    return np.float32(math.sqrt(sumsq))


def _in_lanes(chunk: np.ndarray) -> float:
    missing = -chunk.size % LANES
    rows = np.append(chunk, np.zeros(missing)) if missing else chunk
    total = 0.0
    # Along the first axis NumPy adds row by row.
    for lane in np.add.reduce(rows.reshape(-1, LANES), axis=0):
        total += float(lane)
    return total
