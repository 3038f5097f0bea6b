"""The examples' programs, as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from helpers.places import PROJECT


def load_example(name: str) -> ModuleType:
    """Return a program of ``examples/`` as a module."""
    path = PROJECT / "examples" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
