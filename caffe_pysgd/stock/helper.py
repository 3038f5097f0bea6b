"""A process of its own for Caffe, in which it may read a file or build a net, and die of it.

Caffe ends its process at the first error, and gives the reason to standard error alone. So a
helper loads Caffe once and forks itself for every task: a task costs milliseconds, cannot harm the
caller, and leaves nothing behind for the next.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

# As in the caffe binary, a Python layer's module is looked for on PYTHONPATH, not in the working
# directory, and nothing there can stand in the way of an import.
_PROGRAM = f"import sys; del sys.path[0]; from {__name__} import _serve; _serve()"

_IDLE_SECONDS = 10


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        status: its exit code; negative, the signal that ended it.
        log: what it and Caffe wrote to standard error.
    """

    status: int
    log: str


def run_with_caffe(task: Callable[..., None], *arguments: str) -> Outcome:
    """Run a function of a module with text arguments in the process in which Caffe is loaded.

    It sees the caller's working directory and environment. It answers through files.
    """
    with _lock:
        return _the_helper().run(task, arguments)


class _Helper:
    """The process that loads Caffe and waits for tasks; it ends itself when it is idle."""

    def __init__(self, python_path: str) -> None:
        self.python_path, self.owner = python_path, os.getpid()
        self._log = tempfile.TemporaryFile(prefix="caffe-pysgd-")  # noqa: SIM115 - see close
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM],
            env=_environment(python_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def serves(self, python_path: str) -> bool:
        return (python_path, os.getpid()) == (self.python_path, self.owner) and (
            self._process.poll() is None
        )

    def run(self, task: Callable[..., None], arguments: Tuple[str, ...]) -> Outcome:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        request = {
            "module": task.__module__,
            "task": task.__qualname__,
            "arguments": arguments,
            "directory": os.getcwd(),
            "environment": _environment(self.python_path),
        }
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = b""
        # The helper ends without an answer where Caffe cannot be loaded.
        status = int(answer) if answer else self._process.wait() or 1
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        self._log.seek(0)
        self._log.truncate()
        return Outcome(status, log)

    def close(self) -> None:
        if self.owner == os.getpid():
            assert self._process.stdin and self._process.stdout
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._log.close()


_lock = threading.Lock()
_helper: Optional[_Helper] = None


def _the_helper() -> _Helper:
    global _helper
    said = os.environ.get("PYTHONPATH", "")
    python_path = os.pathsep.join(map(os.path.abspath, said.split(os.pathsep))) if said else ""
    if _helper is None or not _helper.serves(python_path):
        _close()
        _helper = _Helper(python_path)
    return _helper


def _environment(python_path: str) -> dict[str, str]:
    environment = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
    if python_path:
        environment["PYTHONPATH"] = python_path
    return environment


@atexit.register
def _close() -> None:
    if _helper is not None:
        _helper.close()


# ---- in the helper


def _serve() -> None:
    """Load Caffe; then, line by line, fork for each task and answer with its exit code."""
    from caffe_pysgd.stock import pycaffe

    pycaffe.compiled()
    pycaffe.messages()
    while select.select([0], [], [], _IDLE_SECONDS)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            break
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        _, status = os.waitpid(child, 0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        os.write(1, b"%d\n" % code)
    os._exit(0)


def _run(request: Any) -> None:
    """Run one task and end the process."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)  # a layer may print
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        task = getattr(importlib.import_module(request["module"]), request["task"])
        task(*request["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
