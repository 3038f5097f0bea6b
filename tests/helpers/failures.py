"""How a command or a call fails: with one line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest

from caffe_pysgd.errors import UserError

PREFIX = "caffe-pysgd: "


def failure(process: subprocess.CompletedProcess) -> str:
    """Return what the one line says after the program's name."""
    assert process.returncode == 2, process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith(PREFIX)
    return lines[0][len(PREFIX) :]


def failure_in_log(process: subprocess.CompletedProcess) -> str:
    """Return the same where a log of Caffe's is around that line."""
    assert process.returncode == 2, process.stderr
    (line,) = (line for line in process.stderr.splitlines() if line.startswith(PREFIX))
    return line[len(PREFIX) :]


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    said = str(caught.value)
    assert "\n" not in said
    return said


def refusal_of_file(read: Callable[[Path], Any], path: Path) -> str:
    """Return what it says after the path when a file is refused."""
    said = refusal(read, path)
    assert said.startswith(str(path))
    return said[len(str(path)) :]
