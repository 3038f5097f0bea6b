"""The one kind of error that a user is meant to read."""

from __future__ import annotations

import difflib
from typing import Iterable


class UserError(Exception):
    """Something the user can mend: one line that says what, where and how to mend it.

    The command line prints it and leaves with exit code 2.
    """


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest allowed word, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
