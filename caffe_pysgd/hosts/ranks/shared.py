"""Memory that all ranks have in common, where they run on one machine."""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from typing import Optional

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.hosts.ranks.world import World


def shared_zeros(world: World, rows: int, columns: int) -> Optional[Floats]:
    """Return zeros that are the same memory in all ranks.

    It has no name in any file system: nothing is left of it, however the ranks end.

    Returns:
        None, in all ranks, where one of them cannot have it: they are on several machines, or in
        containers that do not see each other's processes.
    """
    key = np.zeros(4, np.int64)  # whose descriptor, and what no other memory begins with
    size = key.nbytes + 4 * rows * columns
    found = None
    with ExitStack() as until_all_have_it:
        if world.rank == 0 and world.on_one_machine:
            try:
                memory = os.memfd_create("caffe-pysgd ranks")
                until_all_have_it.callback(os.close, memory)
                os.ftruncate(memory, size)
                key[:] = os.getpid(), memory, *np.frombuffer(os.urandom(16), np.int64)
                os.pwrite(memory, key.tobytes(), 0)
            except OSError:
                pass  # nobody will find it
        world.broadcast(key)
        if world.on_one_machine:
            found = _mapped(f"/proc/{key[0]}/fd/{key[1]}", key.tobytes(), size)
        if not all(world.all_have(found is not None, "in sharing memory").values()):
            return None
    assert found is not None
    return found.reshape(rows, columns)


def _mapped(path: str, key: bytes, size: int) -> Optional[Floats]:
    """Return what is behind the key in shared memory, or None where it is not that memory."""
    try:
        with open(path, "r+b", buffering=0) as file:
            if file.read(len(key)) != key:
                return None
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.float32, offset=len(key))
    except OSError:
        return None
