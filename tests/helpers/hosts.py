"""The hosts in which a Python program trains, by the names that ``verify --host`` has for them."""

from __future__ import annotations

from typing import Any, Callable, Dict

from caffe_pysgd import get_solver, take_over

Make = Callable[[Any], Any]

PYTHON_HOSTS: Dict[str, Make] = {"hook": take_over, "solver": get_solver}
