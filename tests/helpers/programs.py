"""Programs in a Python process of their own."""

from __future__ import annotations

import subprocess
import sys


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a program to its end, with this Python; return it with what it said."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
