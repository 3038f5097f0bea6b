"""A process of its own for Caffe, in which it may read a file or build a net, and die of it.

Caffe ends its process at the first error, and gives the reason to standard error alone. So a
helper loads Caffe once and forks itself for every task: a task costs milliseconds, cannot harm the
caller, and leaves nothing behind for the next.

A user's program that has Caffe loaded is forked itself: the copy has its path, its modules and what
it set, all of which its Python layers may rely on.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

# As in the caffe binary, a Python layer's module is looked for on PYTHONPATH, not in the working
# directory, and nothing there can stand in the way of an import.
_PROGRAM = f"import sys; del sys.path[0]; from {__name__} import _serve; _serve()"

_IDLE_SECONDS = 10

# A copy that has done nothing for so long waits for a thread of which there is no copy.
_STUCK_SECONDS = 10


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
    return _run_in_helper(task, arguments, None)


def load_caffe_meanwhile() -> None:
    """Let that process load Caffe while the caller does something else."""
    with _lock:
        _the_helper()


def run_with_path(task: Callable[..., None], *arguments: str) -> Outcome:
    """Run such a function there with this process's ``sys.path``."""
    return _run_in_helper(task, arguments, sys.path)


def run_in_copy(task: Callable[..., None], *arguments: str) -> Optional[Outcome]:
    """Run such a function in a copy of this process, Caffe, modules and all.

    Return None where a copy does not work: this process holds a GPU, or a lock that another thread
    is to release.
    """
    if _holds_gpu():
        return None
    with tempfile.TemporaryFile(prefix="caffe-pysgd-") as log:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any thread
            child = os.fork()
        if child == 0:
            os.setsid()  # it, and what its layers start, can be ended as one
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            _perform(lambda: task(*arguments))
        ended = False
        try:
            ended = _ends(child)
        finally:
            status = _end(child)
        return Outcome(_code(status), _read_log(log)) if ended else None


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

    def run(
        self, task: Callable[..., None], arguments: Tuple[str, ...], path: Optional[List[str]]
    ) -> Outcome:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        request = {
            "module": task.__module__,
            "task": task.__qualname__,
            "arguments": arguments,
            "path": path,
            "directory": os.getcwd(),
            "environment": _environment(self.python_path),
        }
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = b""
        except BaseException:  # interrupted: this answer would be taken for the next task's
            self._process.kill()
            self._process.wait()
            raise
        # The helper ends without an answer where Caffe cannot be loaded.
        status = int(answer) if answer else self._process.wait() or 1
        log = _read_log(self._log)
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


def _run_in_helper(
    task: Callable[..., None], arguments: Tuple[str, ...], path: Optional[List[str]]
) -> Outcome:
    with _lock:
        return _the_helper().run(task, arguments, path)


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


def _read_log(log: Any) -> str:
    log.seek(0)
    text: str = log.read().decode(errors="replace")
    return text


# ---- a copy of this process


def _holds_gpu() -> bool:
    """Return whether this process uses a GPU of NVIDIA's: what it has of it is lost to a copy."""
    try:
        opened = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd")]
    except OSError:  # one was closed meanwhile, or there is no /proc
        return False
    return any(name.startswith("/dev/nvidia") for name in opened)


def _ends(child: int) -> bool:
    """Wait for a child; return whether it ended, and is not stuck."""
    busy, since, pause = -1, 0.0, 0.001
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        ticks, now = _ticks(child), time.monotonic()
        if ticks != busy:
            busy, since = ticks, now
        elif now - since > _STUCK_SECONDS:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return True


def _ticks(child: int) -> int:
    """Return the processor time that a process has used, in the system's ticks."""
    try:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _end(child: int) -> int:
    """End a child, if it has not ended, and all that it started; return its status."""
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _code(status: int) -> int:
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


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
        request = json.loads(line)
        with suppress(Exception):  # once, for all tasks of it; the child will say why not
            importlib.import_module(request["module"])
        child = os.fork()
        if child == 0:
            _run(request)
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % _code(status))
    os._exit(0)


def _run(request: Any) -> None:
    """Run one task and end the process."""

    def task() -> None:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        sys.path[:] = request["path"] or sys.path
        module = importlib.import_module(request["module"])
        getattr(module, request["task"])(*request["arguments"])

    _perform(task)


def _perform(task: Callable[[], None]) -> None:
    """Do it, and end the process with what came of it as its exit code."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)  # a layer may print
        task()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
