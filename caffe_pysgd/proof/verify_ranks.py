"""Ranks against themselves, and against one process that has all of their batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import List, NamedTuple, Sequence

import numpy as np

from caffe_pysgd.hosts.ranks.launch import (
    mpi_command,
    mpi_environment,
    threads_each,
    with_ranks,
    write_ranks,
)
from caffe_pysgd.hosts.ranks.sources import whole_batch
from caffe_pysgd.proof.verify import (
    Outcome,
    Progress,
    outcome_in_net,
    run_logged,
    train_in_net,
)
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe

# Sums in another order differ in the last bits; so much, of the largest weight of a parameter, is
# no longer rounding.
TOLERANCE = 1e-3


class Nearness(NamedTuple):
    """How far the weights of a parameter are from each other.

    Attributes:
        name: the parameter.
        largest: the largest difference.
        relative: the same over the largest weight.
    """

    name: str
    largest: float
    relative: float


def train_ranks(
    run: Run, count: int, directory: Path, flags: Sequence[str], progress: Progress
) -> Outcome:
    """Train with several ranks over MPI.

    Raises:
        UserError: Caffe or MPI failed; the reason is given.
    """
    run = with_ranks(run.with_solver(snapshot_prefix=str(directory / "snapshot")), count)
    solvers = write_ranks(run, directory, False, None)
    command = mpi_command(pycaffe.binary(), solvers, flags, threads_each(count))
    log = run_logged(command, directory / "caffe.log", progress, mpi_environment({}))
    return outcome_in_net(run, directory, log)


def train_alone(
    run: Run, count: int, directory: Path, flags: Sequence[str], progress: Progress
) -> Outcome:
    """Train in one process, with the batches of as many ranks in one."""
    alone = replace(run, net=whole_batch(run, count))
    return train_in_net(alone, directory, flags, progress)


def nearness(run: Run, one: Outcome, other: Outcome) -> List[Nearness]:
    """Return how near the weights of two runs are, parameter by parameter."""
    found = []
    for p, mine, theirs in zip(run.parameters, one.weights, other.weights):
        largest = float(np.abs(mine.astype(float) - theirs).max())
        scale = float(np.abs(theirs).max())
        found.append(Nearness(p.name, largest, largest / scale if scale else largest))
    return found
