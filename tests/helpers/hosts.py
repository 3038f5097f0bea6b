"""The hosts of Python's update, by the names that a record has for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict

from caffe_pysgd import UserError, get_solver, take_over
from helpers.failures import failure

Make = Callable[[Any], Any]

# The two that a Python program drives.
PYTHON_HOSTS: Dict[str, Make] = {"hook": take_over, "solver": get_solver}

HOSTS = ("in-net", *PYTHON_HOSTS)


def train(cli: Callable, source: Path, host: str) -> str:
    """Train to the end with a host; return the line that it fails with, or nothing."""
    if host == "in-net":
        trained = cli("train", source, GLOG_minloglevel="2")
        return failure(trained) if trained.returncode else ""
    try:
        solver = PYTHON_HOSTS[host](source)
        solver.solve()
        solver.close()
    except UserError as error:
        return str(error)
    return ""
