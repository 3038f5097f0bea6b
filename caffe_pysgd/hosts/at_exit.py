"""What is to be done when the process ends, in the ``caffe`` binary too."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, List

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_kept: List[Any] = []  # what C was given must stay


def at_exit(function: Callable[[], object]) -> None:
    """Call a function when the process ends; the last one that was given comes first.

    An embedded interpreter is never finalised, so Python's own ``atexit`` would not run there.
    """
    callback = _CALLBACK(lambda _: function())
    _kept.append(callback)
    ctypes.CDLL(None).__cxa_atexit(callback, None, None)
