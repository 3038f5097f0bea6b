"""One run of a sweep as a process of its own, which ends when the sweep does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import yaml

from caffe_pysgd.experiments.progress import LOG
from caffe_pysgd.files import lock_folder, write_files
from caffe_pysgd.run.outputs import own_folder
from caffe_pysgd.run.overrides import put
from caffe_pysgd.run.own_snapshots import chosen_snapshot, clear_prefix, make_snapshot_folder
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.resolved import seen_from, write_resolved
from caffe_pysgd.run.start import check_native_snapshot
from caffe_pysgd.stock import pycaffe

RUN = "run.yaml"

_INTERRUPTIONS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl  # found before a fork, after which little may be done


def write_run(folder: Path, content: Mapping[str, Any], seed: int) -> Path:
    """Write the YAML of a run that has everything of its own in a folder; return it.

    Args:
        folder: the run directory.
        content: the run, paths relative to the working directory.
        seed: its random seed.

    Raises:
        UserError: it cannot be written.
    """
    written: Dict[str, Any] = dict(content)
    for key in ("solver", "module_path"):
        written[key] = seen_from(folder, Path(content[key]))
    written["run_dir"] = "."
    for key, name in (("snapshots", "prefix"), ("solver_overrides", "snapshot_prefix")):
        if isinstance(written.get(key), dict):  # it would be the same for all runs
            written[key] = {k: v for k, v in written[key].items() if k != name}
    put(written, "solver.random_seed", seed)
    text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
    write_files({folder / RUN: f"# Written by caffe-pysgd for one run of a sweep.\n{text}"})
    return folder / RUN


class Child:
    """A run that trains, from its newest complete snapshot on.

    Caffe's log goes to a file in the run directory; a later start adds to it.

    Args:
        folder: the run directory, with its YAML.
        host: ``in-net``, ``solve`` or ``native``.
        threads: how many cores it may use.

    Raises:
        UserError: a native run cannot start.
    """

    def __init__(self, folder: Path, host: str, threads: int) -> None:
        self._log = folder / LOG
        self._from = self._log.stat().st_size if self._log.exists() else 0
        kept: List[int] = []
        if host == "native":
            command = _native_command(folder, kept)
        else:
            verb = "train" if host == "in-net" else "solve"
            start = [sys.executable, "-m", "caffe_pysgd", verb]
            command = [*start, str(folder / RUN), "--snapshot", "auto"]
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                env=_environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=kept,
                start_new_session=True,  # Ctrl-C is for the sweep, which ends its runs itself
                preexec_fn=partial(_end_with, os.getpid()),
            )
        for descriptor in kept:
            os.close(descriptor)

    def wait(self, seconds: float) -> Optional[int]:
        """Return the exit code once the run has ended; None if it still trains then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the run at once: a snapshot on the way would not be one that it always takes."""
        self.process.kill()
        self.process.wait()

    @property
    def was_interrupted(self) -> bool:
        """Whether somebody ended it from outside."""
        return -(self.process.returncode or 0) in _INTERRUPTIONS

    def failure(self) -> str:
        """Return why the run ended, in one line."""
        with open(self._log, "rb") as file:
            file.seek(self._from)
            lines = file.read().decode(errors="replace").splitlines()
        ours = [line for line in lines if line.startswith("caffe-pysgd: ")]
        if self.process.returncode == 2 and ours:
            return ours[-1][len("caffe-pysgd: ") :]
        # What is said of a snapshot that was looked for is no reason.
        return pycaffe.failure_reason("\n".join(line for line in lines if line not in ours))


def _native_command(folder: Path, kept: List[int]) -> Sequence[str]:
    """Write a run for the native solver; return what trains it."""
    run = resolve(folder / RUN)
    run.refuse_beyond_caffe()
    say: Callable[[str], object] = lambda _: None  # noqa: E731 - nobody listens
    snapshot = chosen_snapshot(run, "auto", check_native_snapshot, say)
    make_snapshot_folder(run)
    kept.append(lock_folder(own_folder(folder)))
    clear_prefix(run, snapshot)
    write_resolved(run, folder)
    command = [str(pycaffe.binary()), "train", f"--solver={run.write_stock(folder)}"]
    return [*command, f"--snapshot={snapshot}"] if snapshot else command


def _environment(threads: int) -> Dict[str, str]:
    environment = {**pycaffe.binary_environment(), "GLOG_logtostderr": "1"}
    environment.pop("GLOG_minloglevel", None)
    for library in ("OMP", "OPENBLAS", "MKL"):
        environment[f"{library}_NUM_THREADS"] = str(threads)
    return environment


def _end_with(parent: int) -> None:
    """Let the kernel end this process when its parent is gone, kill -9 included."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
