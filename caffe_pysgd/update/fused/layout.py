"""The tables through which Python and the compiled pass talk; they must agree to the byte."""

from __future__ import annotations

import numpy as np

from caffe_pysgd.update.statistics import LANES

# Values that a pass takes through all its stages, before it turns to the few that are left of them.
# Where it walks over them more than once, all arrays of a block must stay in the first cache.
BLOCK, SMALL_BLOCK = 4096, 1024

# One row per parameter: addresses of data and diff, then of the state slots.
DATA, DIFF, SLOTS = 0, 1, 2

# One row per parameter, float32: what happens to the gradient, a zero that the compiler does not
# know to be one (``Values.opaque`` says what for), then the rule's own scalars.
CLIP, NORMALIZATION, DECAY, NOTHING, RULE = 0, 1, 2, 3, 4

# One row per chunk: the parameter's row, the first value, how many values; and, from a pass that
# looks at it, how many values of the update were not finite, where the first was, and the bits of
# the gradient there.
ROW, START, COUNT, UNFIT, UNFIT_AT, UNFIT_GRADIENT = range(6)
CHUNK_COLUMNS = 6

# For each chunk and quantity: sums and extremes over the chunk, lane by lane, and counts.
FIGURES = np.dtype(
    [
        ("total", np.float64, LANES),
        ("sumsq", np.float64, LANES),
        ("min", np.float32, LANES),
        ("max", np.float32, LANES),
        ("zeros", np.int64),
        ("nonfinite", np.int64),
    ]
)
NO_FIGURES = np.array((0, 0, np.inf, -np.inf, 0, 0), FIGURES)
GRADIENT, REGULARIZED, UPDATE, NEW_DATA, FIRST_SLOT = range(5)

# What is left in the diffs.
LEAVES_UPDATE, LEAVES_ZEROS, LEAVES_ANYTHING = range(3)

# Per thread: a bit for each value of a block, set where it is left for later, and some bits beyond;
# a list of the indices of these values, and one beyond; then arrays as long as a block: of what the
# rule sees and of the update, or of what norms are wanted of.
MARKS = 0
PICKED = MARKS + BLOCK // 8 + 8
ARRAYS = PICKED + 8 * (BLOCK + 1)
SEEN, UPDATES = 0, 1


def array_at(number: int) -> int:
    """Return where an array as long as a block begins in the scratch, in bytes."""
    return ARRAYS + 4 * BLOCK * number


def scratch(norms: int) -> np.ndarray:
    """Return one thread's scratch."""
    return np.zeros(array_at(max(UPDATES + 1, norms)), np.uint8)
