"""Ctrl-C at a line of one's choice, which a signal would hit once in a thousand times."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import caffe_pysgd

PACKAGE = Path(caffe_pysgd.__file__).parent


class CtrlC:
    """Raises at one of the lines of some files, counted as they run.

    Args:
        at: which.
        where: what the paths of the files begin with, below the package.

    Attributes:
        came: whether there were so many lines.
    """

    def __init__(self, at: int, where: str) -> None:
        self._left, self._where = at, str(PACKAGE / where)
        self.came = False

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._where):
            return None
        if event == "line":
            self._left -= 1
            if self._left < 0:
                self.came = True
                raise KeyboardInterrupt
        return self


@contextmanager
def ctrl_c(at: int, where: str) -> Iterator[CtrlC]:
    """Let it come in the block, and go on behind it."""
    before, its = sys.gettrace(), CtrlC(at, where)
    sys.settrace(its)
    try:
        yield its
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
