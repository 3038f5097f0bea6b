"""Packages that come with an extra: imported where they are needed, or named with what to type."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from caffe_pysgd.errors import UserError


def needed(module: str, needs: str, extra: str, more: str = "") -> Any:
    """Return a module of an optional package.

    Args:
        module: its name.
        needs: who needs what: ``report needs Jinja2``.
        extra: the extra that brings it.
        more: what else the message says.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{needs} ({error}): pip install 'caffe-pysgd[{extra}]'{more}") from error
