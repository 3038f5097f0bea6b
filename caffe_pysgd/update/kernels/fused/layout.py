"""The tables through which Python and the compiled pass talk; they must agree to the byte."""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # values that a pass takes through all its stages while they are in the first cache

# One row per parameter: addresses of data, diff and up to two state slots (0 for none).
DATA, DIFF, SLOTS = 0, 1, 2
ADDRESSES = 4

# One row per parameter, float32: what happens to the gradient, a zero that the compiler does not
# know to be one (``elements.opaque`` says what for), then the rule's own scalars.
CLIP, NORMALIZATION, DECAY, NOTHING, RULE = 0, 1, 2, 3, 4
SCALARS = RULE + 12

# One row per chunk: the parameter's row, the first value, how many values.
ROW, START, COUNT = 0, 1, 2

# One row per chunk and quantity, float64: sums, extremes and counts over the chunk.
TOTAL, SUMSQ, MIN, MAX, ZEROS, NONFINITE = range(6)
FIGURES = 6
GRADIENT, REGULARIZED, UPDATE, NEW_DATA, FIRST_SLOT = range(5)
QUANTITIES = FIRST_SLOT + 2

LEAVES_UPDATE, LEAVES_ZEROS, LEAVES_ANYTHING = range(3)

# Per thread: what the rule sees, the update value, one more array, a mark per value, a list of
# eights of marks; and for each quantity the lanes of its figures.
SCRATCH_G, SCRATCH_U, SCRATCH_V, MARKS = (4 * BLOCK * number for number in range(4))
LISTED = MARKS + 2 * BLOCK
LANES_AT, LANES_BYTES = LISTED + 2 * BLOCK, 512
SCRATCH_BYTES = LANES_AT + QUANTITIES * LANES_BYTES


def scratch() -> np.ndarray:
    """Return one thread's scratch."""
    return np.zeros(SCRATCH_BYTES, np.uint8)
