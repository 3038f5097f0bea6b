"""The mean of all ranks' gradients: the same bits through memory and through messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.places import BIN

from caffe_pysgd.hosts.ranks.launch import mpi_environment, placing

PROGRAM = """
import numpy as np
from caffe_pysgd.hosts.ranks import exchange
from caffe_pysgd.hosts.ranks.world import World
from caffe_pysgd.update import Parameter

world, sizes = World(3, 60), (7, 1000, 1)
random = [np.random.RandomState(rank) for rank in range(world.size)]


def means(shares_memory):
    if not shares_memory:
        exchange.shared_zeros = lambda *_: None
    arrays = [(np.zeros(n, "f"), np.zeros(n, "f")) for n in sizes]
    ours = [Parameter(str(i), *both, 1, 1) for i, both in enumerate(arrays)]
    diffs = [p.diff for p in ours]
    together = exchange.Exchange(world, ours, [], [[1]], extra=1)
    assert (together._buckets[0]._means is not None) == shares_memory
    for iteration in range(3):
        gradients = [[r.randn(n).astype("f") for n in sizes] for r in random]
        for diff, gradient in zip(diffs, gradients[world.rank]):
            diff[...] = gradient
        together.extra[:] = world.rank
        together.ready(0)
        together.complete(iteration)
        for p, diff, *each in zip(ours, diffs, *gradients):
            expected = (each[0] + each[1] + each[2]) * (np.float32(1) / np.float32(3))
            assert p.diff.tobytes() == expected.tobytes(), (p.name, iteration)
            assert not diff.any()
        assert together.extra == 1
        for p in ours:
            p.diff[...] = np.nan  # as an update may leave it


means(shares_memory=True)
means(shares_memory=False)
"""


def test_the_mean_has_the_same_bits_through_memory_and_through_messages(workdir: Path) -> None:
    Path("program.py").write_text(PROGRAM)
    mpiexec = str(BIN / "mpiexec")
    done = subprocess.run(
        [mpiexec, *placing(mpiexec), "-n", "3", sys.executable, "program.py"],
        env=mpi_environment({**os.environ}), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
