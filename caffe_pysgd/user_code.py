"""Whether code of a user's own may run: rules, policies, layers in Python."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator

# Why no code of a user's own may run. The environment says so, because then it holds in the
# processes that a command starts, too.
NO_USER_CODE = "CAFFE_PYSGD_NO_USER_CODE"


def why_no_user_code() -> str:
    """Return why no code of a user's own may run; nothing if it may."""
    why = os.environ.get(NO_USER_CODE, "")
    return f"{NO_USER_CODE} is set" if why == "1" else why


@contextmanager
def no_user_code(why: str) -> Iterator[None]:
    """Let no code of a user's own run meanwhile, or for longer where that was said before."""
    before = os.environ.get(NO_USER_CODE, "")
    os.environ[NO_USER_CODE] = before or why
    try:
        yield
    finally:
        os.environ[NO_USER_CODE] = before
