"""Comparing to the last bit, and how far apart two floats are."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_pysgd.update.bits import compare

F = np.float32
INF, NAN = F(np.inf), F(np.nan)
TINY = F(1e-45)  # the smallest denormal
NORMAL = np.finfo(F).tiny  # the smallest normal number
any_bits = st.integers(0, 2**32 - 1)


def floats(*values: float) -> np.ndarray:
    return np.array(values, F)


def from_bits(*bits: int) -> np.ndarray:
    return np.array(bits, np.uint32).view(F)


def ulp(one: float, other: float) -> int:
    there, back = compare("x", floats(one), floats(other)), compare("x", floats(other), floats(one))
    assert there.max_ulp == back.max_ulp
    assert there.differ == back.differ == int(there.max_ulp > 0)
    return there.max_ulp


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        (1, 1, 0),
        (0.0, 0.0, 0),
        (-0.0, -0.0, 0),
        (0.0, -0.0, 1),
        (TINY, 0.0, 1),
        (-TINY, -0.0, 1),
        (TINY, -0.0, 2),
        (TINY, -TINY, 3),
        (2 * TINY, TINY, 1),
        (NORMAL, NORMAL - TINY, 1),
        (NORMAL, 0.0, 2**23),
        (1, np.nextafter(F(1), F(2)), 1),
        (1, np.nextafter(F(1), F(0)), 1),
        (-1, np.nextafter(F(-1), F(-2)), 1),
        (1, 2, 2**23),
        (np.finfo(F).max, INF, 1),
        (-np.finfo(F).max, -INF, 1),
        (INF, INF, 0),
        (INF, -INF, 2 * 0x7F800000 + 1),
        (NAN, NAN, 0),
        (NAN, 1, 0x7FC00000 - 0x3F800000),
    ],
)
def test_the_distance_counts_the_floats_from_one_to_the_other(
    one: float, other: float, distance: int
) -> None:
    assert ulp(one, other) == distance


def test_every_nan_is_the_same_and_unlike_any_number() -> None:
    nans = from_bits(0x7FC00000, 0x7FC00005, 0xFFC00000, 0x7F800001)
    assert compare("x", nans, np.full(4, NAN)).differ == 0
    assert compare("x", nans, floats(0, 1, INF, -INF)).differ == 4


@given(bits=st.lists(any_bits, max_size=20))
def test_an_array_differs_in_nothing_from_a_copy(bits: list[int]) -> None:
    found = compare("x", from_bits(*bits), from_bits(*bits))
    assert (found.count, found.differ, found.max_ulp, found.first) == (len(bits), 0, 0, None)


@given(pairs=st.lists(st.tuples(any_bits, any_bits), min_size=1, max_size=20))
def test_values_differ_exactly_where_their_bits_do(pairs: list[tuple[int, int]]) -> None:
    one, other = zip(*pairs)
    found = compare("x", from_bits(*one), from_bits(*other))
    nan = [all(np.isnan(from_bits(*pair))) for pair in pairs]
    differing = [index for index, (a, b) in enumerate(pairs) if a != b and not nan[index]]
    assert found.differ == len(differing)
    assert found.first == (differing[0] if differing else None)
    assert (found.max_ulp > 0) == bool(differing)


@given(bits=any_bits)
def test_the_next_float_is_one_away(bits: int) -> None:
    (value,) = from_bits(bits)
    if np.isfinite(value) and value != 0:
        assert ulp(value, np.nextafter(value, INF)) == 1


def test_the_first_difference_is_shown_in_full() -> None:
    found = compare("conv1/0", floats(1, 2, 3), floats(1, np.nextafter(F(2), F(3)), 5))
    assert (found.expected, found.found) == ("0x1.0000000000000p+1", "0x1.0000020000000p+1")
    assert str(found) == (
        "conv1/0: 2 of 3 values differ, max 6291456 ulp; first at index 1: "
        "expected 0x1.0000000000000p+1, found 0x1.0000020000000p+1"
    )
    assert str(compare("conv1/0", floats(1), floats(1))) == "conv1/0: 1 values, the same bits"


def test_shapes_do_not_matter_but_lengths_and_types_do() -> None:
    assert compare("x", np.ones((2, 3), F), np.ones(6, F)).count == 6
    with pytest.raises(ValueError, match="x: 2 float32 against 3 float32"):
        compare("x", np.ones(2, F), np.ones(3, F))
    with pytest.raises(ValueError, match="x: 2 float32 against 2 float64"):
        compare("x", np.ones(2, F), np.ones(2))


def test_strided_arrays_are_compared_by_their_values() -> None:
    wide = np.arange(20, dtype=F).reshape(4, 5)
    assert compare("x", wide[:, ::2], wide[:, ::2].copy()).differ == 0
    assert compare("x", wide.T, wide).differ == 18


def test_a_comparison_can_be_written_as_json() -> None:
    found = compare("x", floats(np.nan, 0), floats(np.inf, -0.0))
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["differ"] == 2
