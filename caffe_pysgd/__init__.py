"""Python owns the parameter update of Caffe: see it, prove it, change it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe_pysgd.update import ParameterStep, UpdateRule

__version__ = "0.1.0"

# Imported when first asked for: the command line must start where NumPy is broken, to say so.
_EXPORTS = {
    "ParameterStep": "caffe_pysgd.update",
    "UpdateRule": "caffe_pysgd.update",
}

__all__ = ["ParameterStep", "UpdateRule", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'caffe_pysgd' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
