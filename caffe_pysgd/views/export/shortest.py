"""Real numbers as text, as ``repr`` writes them, a whole column at once.

``repr`` takes half a microsecond for a number, and an audit has tens of millions. Here a number is
scaled to 17 digits before the point in extended precision; the shortest decimal that still reads
back to it is the nearest one of 15, 16 or 17 digits that lies within half a step to its neighbours.
Where the rounding of that scaling could decide, and for powers of two, whose steps differ on both
sides, ``repr`` is asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Iterable

import numpy as np

_LEAST, _MOST = -40, 40  # the exponents of ten that are written here
_DIGITS = 17
_DOUBT = 1 / 64  # two roundings, of the power and of the product, at 2**57 and 64 bits

# The places of a text: sign, the 0 of "0.001", digits, point, the zeros after it, digits, exponent.
_WHOLE, _POINT, _ZEROS, _FRACTION, _EXPONENT = 2, 19, 20, 23, 40
WIDTH = 45
NOTHING = 255
"""A byte that no text in UTF-8 has."""


def shortest(values: np.ndarray) -> np.ndarray:
    """Return the texts of float64 values: rows of ``WIDTH`` bytes.

    Without the bytes ``NOTHING``, each is what ``repr`` gives.
    """
    sizes = np.abs(values)
    known = (sizes > 10.0**_LEAST) & (sizes < 10.0**_MOST)
    known &= (values.view(np.int64) & (2**52 - 1)) != 0
    known &= np.finfo(np.longdouble).nmant >= 63
    sizes = np.where(known, sizes, 1.5)
    exponents = np.floor(np.log10(sizes)).astype(np.int64)
    powers = _powers()[exponents - _LEAST]
    scaled = sizes * powers
    digits = np.rint(scaled).astype(np.int64)
    rest = (scaled - digits).astype(np.float64)
    half_step = np.spacing(sizes) * powers.astype(np.float64) / 2
    known &= (digits >= 10 ** (_DIGITS - 1)) & (np.abs(rest) < 0.5 - _DOUBT)
    lengths = np.full(len(values), _DIGITS)
    exact = digits
    for length in (_DIGITS - 1, _DIGITS - 2):
        unit = 10 ** (_DIGITS - length)
        over = exact % unit
        up = over + rest > unit / 2
        away = np.abs(over + rest - unit * up)
        known &= np.abs(away - half_step) > _DOUBT
        known &= (np.abs(over + rest - unit / 2) > _DOUBT) | (away > half_step)
        fits = away < half_step
        digits = np.where(fits, exact + (unit * up - over), digits)
        lengths[fits] = length
    known &= digits < 10**_DIGITS
    digits = np.where(known, digits, 10 ** (_DIGITS - 1))
    texts = _digits(digits)
    short = np.flatnonzero(lengths == _DIGITS - 2)
    lengths[short] = _DIGITS - np.argmax(texts[short, ::-1] != ord("0"), axis=1)
    table = _layouts()
    result: np.ndarray = table.take((exponents - _LEAST) * (_DIGITS + 1) + lengths, axis=0)
    result[:, _WHOLE:_POINT] |= texts
    result[:, _FRACTION:_EXPONENT] |= texts
    result[values < 0, 0] = ord("-")
    _ask(values, np.flatnonzero(~known), result)
    return result


def _ask(values: np.ndarray, places: np.ndarray, result: np.ndarray) -> None:
    """Put in what ``repr`` says: once of each value, as zero comes again and again."""
    bits, inverse = np.unique(values[places].view(np.int64), return_inverse=True)
    said = [repr(value) for value in bits.view(np.float64).tolist()]
    result[places] = padded(said, WIDTH)[inverse]


def padded(texts: Iterable[str], width: int = 0) -> np.ndarray:
    """Return texts as rows of bytes of one width, the longest one's unless told."""
    encoded = [text.encode() for text in texts]
    width = width or max(map(len, encoded))
    joined = b"".join(text.ljust(width, bytes([NOTHING])) for text in encoded)
    return np.frombuffer(joined, np.uint8).reshape(len(encoded), width)


def _digits(numbers: np.ndarray) -> np.ndarray:
    """Return 17 digits of each number."""
    fours = _fours()
    texts = np.empty((len(numbers), 5), np.uint32)
    upper = numbers // 10**8
    for half, places in ((numbers - upper * 10**8, (4, 3)), (upper, (2, 1))):
        left = half.astype(np.uint32)
        for place in places:
            more = left // np.uint32(10**4)
            texts[:, place] = fours[left - more * np.uint32(10**4)]
            left = more
    texts[:, 0] = fours[left]
    return texts.view(np.uint8).reshape(-1, 20)[:, 3:]


@lru_cache(maxsize=None)
def _fours() -> np.ndarray:
    texts = "".join(f"{number:04d}" for number in range(10**4))
    return np.frombuffer(texts.encode(), np.uint32)


@lru_cache(maxsize=None)
def _powers() -> np.ndarray:
    exponents = range(_LEAST, _MOST + 1)
    return np.array([np.longdouble(f"1e{_DIGITS - 1 - exponent}") for exponent in exponents])


@lru_cache(maxsize=None)
def _layouts() -> np.ndarray:
    """Return by exponent and length where digits go (0), and the bytes around them."""
    table = np.full((_MOST - _LEAST + 1, _DIGITS + 1, WIDTH), NOTHING, np.uint8)
    for exponent in range(_LEAST, _MOST + 1):
        fixed = -4 <= exponent < 16
        for length in range(1, _DIGITS + 1):
            row = table[exponent - _LEAST, length]
            whole = exponent + 1 if fixed else 1
            end = max(length, whole + 1) if fixed else length
            row[_WHOLE : _WHOLE + max(whole, 0)] = 0
            row[_FRACTION + max(whole, 0) : _FRACTION + end] = 0
            if whole <= 0:
                row[_WHOLE - 1] = ord("0")
                row[_ZEROS : _ZEROS - whole] = ord("0")
            if end > whole:
                row[_POINT] = ord(".")
            if not fixed:
                text = f"e{exponent:+03d}".encode()
                row[_EXPONENT : _EXPONENT + len(text)] = list(text)
    return table.reshape(-1, WIDTH)
