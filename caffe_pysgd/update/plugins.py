"""What a user names as ``module:name``: a rule or a policy of their own."""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from typing import Iterator

from caffe_pysgd.errors import SettingError, nearest

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


def import_by_name(field: str, module_name: str, attribute: str) -> object:
    """Return an attribute of a module of the user's, which a setting names.

    Raises:
        SettingError: the module cannot be imported, or has no such attribute; or no code of a
            user's own may run.
    """
    name = f"{module_name}:{attribute}"
    forbidden = why_no_user_code()
    if forbidden:
        problem = f"no code of a user's own is run here: {forbidden}"
        raise SettingError(field, name, problem=problem)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        problem = f"importing {module_name} failed: {type(error).__name__}: {error}"
        raise SettingError(field, name, problem=problem) from error
    try:
        return getattr(module, attribute)  # type: ignore[no-any-return]
    except AttributeError as error:
        problem = f"{module_name} has no '{attribute}'{nearest(attribute, vars(module))}"
        raise SettingError(field, name, problem=problem) from error
