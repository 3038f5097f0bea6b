"""The tables through which Python and the compiled pass talk; they must agree to the byte."""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # values that a pass takes through all its stages while they are in the first cache

# One row per parameter: addresses of data and diff, then of the state slots.
DATA, DIFF, SLOTS = 0, 1, 2

# One row per parameter, float32: what happens to the gradient, a zero that the compiler does not
# know to be one (``elements.opaque`` says what for), then the rule's own scalars.
CLIP, NORMALIZATION, DECAY, NOTHING, RULE = 0, 1, 2, 3, 4

# One row per chunk: the parameter's row, the first value, how many values; and, from a pass that
# looks at it, how many values of the update were not finite, where the first was, and the bits of
# the gradient there.
ROW, START, COUNT, UNFIT, UNFIT_AT, UNFIT_GRADIENT = range(6)
CHUNK_COLUMNS = 6

# One row per chunk and quantity, float64: sums, extremes and counts over the chunk.
TOTAL, SUMSQ, MIN, MAX, ZEROS, NONFINITE = range(6)
FIGURES = 6
GRADIENT, REGULARIZED, UPDATE, NEW_DATA, FIRST_SLOT = range(5)

# What is left in the diffs.
LEAVES_UPDATE, LEAVES_ZEROS, LEAVES_ANYTHING = range(3)

# Per thread: a mark per value, a list of eights of marks, then arrays as long as a block, then for
# each quantity the lanes of its figures, or for each norm those of its squares.
MARKS, LISTED, ARRAYS = 0, 2 * BLOCK, 4 * BLOCK
LANES_BYTES = 512


def array_at(number: int) -> int:
    """Return where an array as long as a block begins in the scratch."""
    return ARRAYS + 4 * BLOCK * number


def scratch(arrays: int, lanes: int) -> np.ndarray:
    """Return one thread's scratch."""
    return np.zeros(array_at(arrays) + lanes * LANES_BYTES, np.uint8)
