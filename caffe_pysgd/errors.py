"""The errors that a user is meant to read."""

from __future__ import annotations

import difflib
import reprlib
from typing import Any, Iterable, Optional

_MOST, _MOST_LISTED = 120, 600  # characters of a value, or of a list, that a message shows


class UserError(Exception):
    """Something the user can fix: one line that says what, where and how.

    The command line prints it and exits with code 2.
    """


class SettingError(UserError, ValueError):
    """A setting that is not allowed: ``field: got X; expected Y``.

    Args:
        field: its name, or its path from where the error is found.
        got: its value.
        expected: what is allowed.
        problem: what is wrong with the value, where "expected" would not say it.
        where: the file, where it is known.
    """

    def __init__(
        self,
        field: str,
        got: Any,
        expected: str = "",
        *,
        problem: str = "",
        where: Optional[object] = None,
    ) -> None:
        self.field, self.got, self.expected = field, got, expected
        self._problem, self._where = problem, where
        what = problem or f"expected {expected}"
        place = [str(part) for part in (where, field) if part]
        super().__init__(f"{': '.join(place)}: got {_shown(got)}; {what}")

    def at(self, where: object, key: str = "") -> SettingError:
        """Return the same error with the file, and the key of what holds the field."""
        field = f"{key}.{self.field}" if key else self.field
        return SettingError(field, self.got, self.expected, problem=self._problem, where=where)


def one_of(allowed: Iterable[str], got: str = "", more: str = "") -> str:
    """Return ``one of a, b``, with what else is allowed and the likely spelling of what was got."""
    words = list(allowed)
    return f"one of {listed(words)}{more}{nearest(got, words)}"


def listed(words: Iterable[str]) -> str:
    """Return words with commas between them, cut where a message would become a page."""
    text = ", ".join(words)
    return text if len(text) <= _MOST_LISTED else f"{text[:_MOST_LISTED]}..."


def nearest(word: str, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``; did you mean 'x'?`` for the nearest allowed word, or an empty string.

    The cutoff is how alike they must be, from 0 to 1.
    """
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=cutoff)
    return f"; did you mean '{close[0]}'?" if close else ""


class _Short(reprlib.Repr):
    """Values as Python writes them, cut where a message would become a page."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 8, 8, 8
        self.maxstring = self.maxother = _MOST


def _shown(value: Any) -> str:
    if hasattr(value, "dtype"):  # np.float32(0.1) is shown as 0.1
        return str(value)
    text = _Short().repr(value)
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."
