"""How a command fails: exit code 2 and one line on stderr."""

from __future__ import annotations

import subprocess


def failure(process: subprocess.CompletedProcess) -> str:
    """Return what the one line says after the program's name."""
    assert process.returncode == 2, process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 1, process.stderr
    prefix = "caffe-pysgd: "
    assert lines[0].startswith(prefix)
    return lines[0][len(prefix) :]
