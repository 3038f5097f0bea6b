"""What a figure depends on: the machine, the threads and the versions."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict

from caffe_pysgd.update.fused.update import thread_count


def describe() -> Dict[str, str]:
    """Return what to say about where and when something was measured."""
    return {
        "date": date.today().isoformat(),
        "processor": _first(r"model name\s*: (.*)", Path("/proc/cpuinfo")),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(_first(r'MemTotal: *([0-9]+)', Path('/proc/meminfo'))) / 2**20:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "threads of the fused kernels": str(thread_count()),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "as the machine has cores"),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "llvmlite", "caffe-pysgd")},
    }


def _first(pattern: str, path: Path) -> str:
    found = re.search(pattern, path.read_text())
    return found[1] if found else "?"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
