"""Programs in a process of their own.

They are started with ``close_fds=False``, here and elsewhere: so Python need not fork this process,
which holds the nets of many tests, and takes long to be copied.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Tuple

from helpers.places import BIN


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a program to its end, with this Python; return it with what it said."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        close_fds=False,
        text=True,
    )


def shown_on_terminal(stream: str, *arguments: object, **environment: str) -> str:
    """Run ``caffe-pysgd`` with a terminal as its stdout or stderr; return what that shows.

    It has to end well, and to say nothing on the other of the two.
    """
    shown, said = shown_on_terminal_and(stream, *arguments, **environment)
    assert said == "", shown
    return shown


def shown_on_terminal_and(stream: str, *arguments: object, **environment: str) -> Tuple[str, str]:
    """Return the same, and what it says on the other of the two."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GLOG_")}
    master, slave = pty.openpty()
    streams: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: slave}
    process = subprocess.Popen(
        [str(BIN / "caffe-pysgd"), *map(str, arguments)],
        env={**inherited, "TERM": "xterm", **environment},
        **streams,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how Linux says that the other side is gone
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    said = b"".join(text for text in process.communicate(timeout=60) if text)
    assert process.returncode == 0, shown.decode()
    return shown.decode(), said.decode()


def in_venv(venv: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run ``caffe-pysgd`` with the Python of another environment, and nothing else on PATH."""
    return subprocess.run(
        [str(venv / "bin" / "python3"), "-m", "caffe_pysgd", *arguments],
        env={**os.environ, "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        close_fds=False,
        text=True,
    )
