"""Whether two arrays are the same to the last bit, and if not, where and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Two arrays of float32, bit by bit.

    Attributes:
        name: what was compared.
        count: the number of values.
        differ: how many differ in at least one bit.
        max_ulp: the greatest distance, in units in the last place.
        first: the flat index of the first that differs, or None.
        expected, found: the values there, as hex floats; empty where nothing differs.
    """

    name: str
    count: int
    differ: int
    max_ulp: int
    first: Optional[int] = None
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        if not self.differ:
            return f"{self.name}: {self.count} values, the same bits"
        return (
            f"{self.name}: {self.differ} of {self.count} values differ, max {self.max_ulp} ulp; "
            f"first at index {self.first}: expected {self.expected}, found {self.found}"
        )


def compare(name: str, expected: np.ndarray, found: np.ndarray) -> Comparison:
    """Compare two float32 arrays of the same length bit by bit; see ``other_bits`` for NaN.

    Raises:
        ValueError: they differ in length or are not float32.
    """
    if expected.size != found.size or expected.dtype != np.float32 or found.dtype != np.float32:
        raise ValueError(
            f"{name}: {expected.size} {expected.dtype} against {found.size} {found.dtype}"
        )
    expected, found = np.ravel(expected), np.ravel(found)
    differing = np.flatnonzero(other_bits(expected, found))
    if not differing.size:
        return Comparison(name, expected.size, 0, 0)
    first = int(differing[0])
    distance = np.abs(_ordinal(expected[differing]) - _ordinal(found[differing]))
    return Comparison(
        name,
        expected.size,
        int(differing.size),
        int(distance.max()),
        first,
        float(expected[first]).hex(),
        float(found[first]).hex(),
    )


def other_bits(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return where two flat float32 arrays differ in a bit; every NaN counts as the same.

    Of two NaNs, a processor hands on the one that is the first operand, and compilers choose the
    order: the bits of a NaN mean nothing.
    """
    nans: np.ndarray = np.isnan(expected) & np.isnan(found)
    return (expected.view(np.uint32) != found.view(np.uint32)) & ~nans


def _ordinal(values: np.ndarray) -> np.ndarray:
    """Number the floats in order, so that neighbours differ by one; -0 is the one below +0."""
    bits = np.ascontiguousarray(values).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF) - 1)
