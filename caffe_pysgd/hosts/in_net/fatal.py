"""How a layer inside the ``caffe`` binary says why it ends the process."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import Any, Callable

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.ranks.world import World, abort
from caffe_pysgd.stock import pycaffe


def exit_with_message(method: Callable[..., None]) -> Callable[..., None]:
    """Inside the ``caffe`` binary, end with one clear line and exit code 2.

    An exception that left a layer there would end in SIGABRT, without its message. In a Python
    process it simply reaches the caller.
    """

    @functools.wraps(method)
    def guarded(*arguments: Any) -> None:
        try:
            method(*arguments)
        except BaseException as error:
            if not pycaffe.in_caffe_binary():
                raise
            if os.environ.get("CAFFE_PYSGD_TRACEBACK"):
                traceback.print_exc()
            if World.current:
                abort(error)
            known = isinstance(error, UserError)
            what = str(error) if known else f"{type(error).__name__}: {error}"
            sys.stderr.write(f"caffe-pysgd: {what}\n")
            sys.stderr.flush()
            os._exit(2)

    return guarded
