"""One weight's update as lines on a board: each rounded once, each with its bits.

A line has a name, and its formula is written once: the names in it are names of lines above, and
the numbers are the values of those. What the update itself left (its stages, its history) is held
against the line that computes it, so that a board cannot say what was not.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from dataclasses import dataclass
from typing import Any, Callable, Container, Dict, List, Mapping

import numpy as np

from caffe_pysgd.update.kernels import Kernels

F = np.float32

_OPERATIONS: Dict[str, Callable[[np.float32, np.float32], np.float32]] = {
    "·": lambda x, y: F(x * y),
    "/": lambda x, y: F(x / y),
    "+": lambda x, y: F(x + y),
    "-": lambda x, y: F(x - y),
}

_fmaf = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6").fmaf
_fmaf.restype, _fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3


def multiply_add(a: np.float32, x: np.float32, y: np.float32) -> np.float32:
    """Return ``a x + y``, rounded once."""
    return F(_fmaf(a, x, y))


def fuses(kernels: Kernels, count: int, element: int) -> bool:
    """Return whether these kernels round ``a x + y`` once, at this element of so long an array.

    A BLAS may do the last few elements, which do not fill a vector, in another way.
    """
    like = min(count, 1 << 16)
    from_end = count - 1 - element
    place = like - 1 - from_end if from_end < like // 2 else min(element, like // 2)
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, and the last term is lost if the product is rounded.
    x, y = np.full(like, 1 + 2.0**-12, F), np.full(like, -(1 + 2.0**-11), F)
    kernels.axpy(x[0], x, y)
    return bool(y[place] != 0)


@dataclass(frozen=True)
class Line:
    """One line of the board.

    Attributes:
        name: what it is, as later formulas call it.
        formula: how it comes about, with names; empty for what is given.
        numbers: the formula with numbers in it.
        note: instead of numbers, where the value comes from or why it stays.
        value: its value: the recorded one, where the update left it.
        recorded: whether the update left it.
        computed: what the formula gives; another value than the recorded one is a contradiction.
    """

    name: str
    formula: str
    numbers: str
    note: str
    value: np.float32
    recorded: bool
    computed: np.float32

    @property
    def differs(self) -> bool:
        """Whether the formula does not give what was recorded."""
        return not same(self.value, self.computed)


def same(a: np.float32, b: np.float32) -> bool:
    """Return whether two values are the same; a zero may have either sign."""
    return bool(a == b or (np.isnan(a) and np.isnan(b)))


def decimal(value: np.float32) -> str:
    """Return a float32 with as few digits as name it."""
    value = F(value)
    if value != 0 and not 1e-5 <= abs(value) < 1e9:  # not a number and infinity, too
        return str(np.format_float_scientific(value, trim="-", exp_digits=1))
    return str(np.format_float_positional(value, trim="-"))


def hexadecimal(value: np.float32) -> str:
    """Return a float32 as C's ``%a`` writes it: every bit, and no more."""
    if not np.isfinite(value):
        return str(float(value))
    mantissa, _, exponent = float(value).hex().partition("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}" if "." in mantissa else "0x0p+0"


class Board:
    """The lines so far, and the values by name.

    Args:
        recorded: what the update left, by the name of the line.
        kernels: which computed it.
        fused: whether they round ``a x + y`` once, where the record does not tell.
        t: the iteration, counted from 1.
    """

    def __init__(
        self, recorded: Mapping[str, np.float32], kernels: Kernels, fused: bool, t: int
    ) -> None:
        self.lines: List[Line] = []
        self.kernels = kernels
        self.t = t
        self._recorded, self._fused = recorded, fused
        self._values: Dict[str, np.float32] = {}
        self.fused_lines = 0

    def __getitem__(self, name: str) -> np.float32:
        return self._values[name]

    def free(self, name: str, reserved: Container[str] = ()) -> str:
        """Return a name that nothing has yet: this one, or with a number."""
        free, number = name, 2
        while free in self._values or free in reserved:
            free, number = f"{name}_{number}", number + 1
        return free

    def know(self, name: str, value: Any) -> None:
        """Let formulas use a value that needs no line of its own, such as a hyper-parameter."""
        self._values[name] = F(value)

    def give(self, name: str, value: Any, source: str) -> None:
        """Write down a value that no formula gives."""
        self._values[name] = F(value)
        self.lines.append(Line(name, "", "", source, F(value), True, F(value)))

    def write(self, name: str, formula: str, value: Any, numbers: str = "") -> None:
        """Write a line.

        Args:
            name: what it is; if the update left a value of that name, that is what counts.
            formula: with the names of other values in braces.
            value: what the formula comes to.
            numbers: what to show instead of the formula with numbers.
        """
        known = _Numbers(self._values, self.t)
        numbers = numbers or _plain(re.sub(r"{([^{}]*)}", lambda name: known[name[1]], formula))
        self._add(name, formula.replace("{", "").replace("}", ""), numbers, "", F(value))

    def copy(self, name: str, of: str, because: str = "") -> None:
        """Write a line that leaves a value as it is."""
        self._add(name, of, "", because, self[of])

    def _add(self, name: str, formula: str, numbers: str, note: str, computed: np.float32) -> None:
        recorded = name in self._recorded
        value = F(self._recorded[name]) if recorded else computed
        self._values[name] = value
        self.lines.append(Line(name, formula, numbers, note, value, recorded, computed))

    def compute(self, name: str, left: str, operation: str, right: str) -> None:
        """Write a line of one operation, ``left operation right``."""
        with np.errstate(all="ignore"):
            value = _OPERATIONS[operation](self[left], self[right])
        self.write(name, f"{{{left}}} {operation} {{{right}}}", value)

    def multiply_add(self, name: str, a: str, x: str, y: str) -> None:
        """Write ``a · x + y`` as the kernels round it: one line if once, two if twice."""
        with np.errstate(all="ignore"):
            product = F(self[a] * self[x])
            once, twice = multiply_add(self[a], self[x], self[y]), F(product + self[y])
        fused = self._fused
        left = self._recorded.get(name)
        if left is not None and same(left, once) != same(left, twice):
            fused = same(left, once)
        if fused:
            self.fused_lines += 1
            self.write(name, f"{{{a}}} · {{{x}}} + {{{y}}}", once)
        else:
            rounded = self.free("product")
            self.compute(rounded, a, "·", x)
            self.compute(name, rounded, "+", y)

    def power(self, name: str, base: str, exponent: float) -> None:
        """Write a power as the kernels compute it, which need not be the correctly rounded one."""
        result = np.array([self[base]], F)
        with np.errstate(all="ignore"):
            self.kernels.powx(result.copy(), F(exponent), result)
        self.write(name, f"pow({{{base}}}, {exponent:g})", result[0])

    def root(self, name: str, of: str) -> None:
        """Write a square root, correctly rounded."""
        with np.errstate(all="ignore"):
            self.write(name, f"sqrt({{{of}}})", np.sqrt(self[of]))


def _plain(numbers: str) -> str:
    """Take away the parentheses that no reader needs: at the beginning, and doubled ones."""
    return re.sub(r"^\((-[^()]*)\)", r"\1", re.sub(r"\((\(-[^()]*\))\)", r"\1", numbers))


class _Numbers(Dict[str, str]):
    """Values by name, as numbers to be put into a formula; a negative one in parentheses."""

    def __init__(self, values: Mapping[str, np.float32], t: int) -> None:
        super().__init__(t=str(t))
        self._of = values

    def __missing__(self, name: str) -> str:
        number = decimal(self._of[name])
        return f"({number})" if number.startswith("-") else number
