"""The audit of a net with 202 parameter blobs, as the benchmarks write it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers.places import PROJECT


def write_large_audit(folder: Path, **settings: Any) -> Path:
    """Write one into a folder; settings are the script's flags: ``iterations=40``."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    script = PROJECT / "benchmarks" / "large_audit.py"
    command = [sys.executable, str(script), str(folder / "audit.sqlite"), *flags]
    subprocess.run(command, check=True, timeout=120)
    return folder
