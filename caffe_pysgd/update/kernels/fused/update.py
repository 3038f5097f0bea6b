"""The fused update of many parameters: tables, threads, and one call of the compiled pass each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from enum import Enum
from functools import cache
from operator import is_
from typing import Callable, Dict, List, NamedTuple, Sequence

import numpy as np

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels.fused import layout
from caffe_pysgd.update.kernels.fused.scalars import SCALARS
from caffe_pysgd.update.libm import address_of_powf
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.statistics import CHUNK, Statistics

F = np.float32

# Waking another thread costs a quarter of a millisecond on a virtual machine: it must have as much
# to do.
_WORTH_A_THREAD = 1 << 19


class Task(NamedTuple):
    """One parameter of a fused update.

    Attributes:
        state: its slots by name.
        decay: its local decay; ``decoupled`` where the rule applies that itself.
    """

    parameter: Parameter
    state: Dict[str, np.ndarray]
    h: HyperParameters
    decay: np.float32
    decoupled: bool


class Leaves(Enum):
    """What an update leaves in a diff."""

    UPDATE = layout.LEAVES_UPDATE  # as Caffe does
    ZEROS = layout.LEAVES_ZEROS
    ANYTHING = layout.LEAVES_ANYTHING  # which saves writing it


class FusedUpdate:
    """Takes all parameters of one rule from their gradients to their new weights.

    Args:
        compiled: the pass.
        rule: the rule's name.
        slots: the names of its state slots, in its order.
        tasks: the parameters, all with the same ``regularization_type``.
    """

    def __init__(
        self,
        compiled: Callable[..., int],
        rule: str,
        slots: Sequence[str],
        tasks: Sequence[Task],
    ) -> None:
        self._compiled = compiled
        self._slots = tuple(slots)
        self._tasks = list(tasks)
        self._scalars_of = SCALARS[rule]
        self._seen: List[List[np.ndarray]] = [[] for _ in tasks]
        self._addresses = np.zeros((len(tasks), layout.ADDRESSES), np.int64)
        self._scalars = np.zeros((len(tasks), layout.SCALARS), F)
        self._decays = np.array([task.decay for task in tasks], F)
        for row, task in zip(self._scalars, tasks):
            row[layout.DECAY] = F(0) if task.decoupled else task.decay
        alike: Dict[HyperParameters, List[int]] = {}
        for number, task in enumerate(tasks):
            alike.setdefault(task.h, []).append(number)
        self._alike = [(h, np.array(rows)) for h, rows in alike.items()]
        self._counts = np.array([task.parameter.count for task in tasks])
        self._chunks = np.array(
            [
                (number, start, min(CHUNK, task.parameter.count - start))
                for number, task in enumerate(tasks)
                for start in range(0, task.parameter.count, CHUNK)
            ],
            np.int64,
        ).reshape(-1, 3)
        rows = np.arange(len(tasks))
        self._first_chunks = np.searchsorted(self._chunks[:, layout.ROW], rows)
        self._figures = np.zeros((len(self._chunks), layout.QUANTITIES, layout.FIGURES))
        self._quantities = [
            ("gradient", layout.GRADIENT),
            ("regularized", layout.REGULARIZED),
            *((slot, layout.FIRST_SLOT + number) for number, slot in enumerate(slots)),
            ("update", layout.UPDATE),
            ("data", layout.NEW_DATA),
        ]
        self._shares = _shares(self._chunks[:, layout.COUNT])
        self._scratches = [layout.scratch() for _ in self._shares]
        self._tables = [a.ctypes.data for a in (self._addresses, self._scalars, self._chunks)]
        self._scratch_addresses = [scratch.ctypes.data for scratch in self._scratches]
        self._figures_address = self._figures.ctypes.data
        self._powf = address_of_powf()

    def run(
        self,
        rates: Sequence[np.float32],
        iteration: int,
        clip: np.float32,
        normalization: np.float32,
        leaves: Leaves,
        measure: bool,
    ) -> None:
        """Update every parameter.

        Args:
            rates: the local rates.
            clip: the factor that ``clip_gradients`` scales all gradients by.
            normalization: what they are scaled by for ``iter_size`` after that.
            leaves: what is left in the diffs.
            measure: take figures, too.
        """
        self._look_where_they_are()
        self._set_scalars(np.array(rates, F), iteration, clip, normalization)
        rest = (self._powf, self._figures_address if measure else 0, leaves.value)
        calls = [
            (*self._tables, first, last, scratch, *rest)
            for (first, last), scratch in zip(self._shares, self._scratch_addresses)
        ]
        others = [_pool().submit(self._compiled, *call) for call in calls[1:]]
        self._compiled(*calls[0])
        wait(others)

    def _set_scalars(
        self, rates: np.ndarray, iteration: int, clip: np.float32, normalization: np.float32
    ) -> None:
        scalars = self._scalars
        scalars[:, layout.CLIP], scalars[:, layout.NORMALIZATION] = clip, normalization
        for h, rows in self._alike:
            own = self._scalars_of(h, rates[rows], self._decays[rows], iteration)
            for number, values in enumerate(own, layout.RULE):
                scalars[rows, number] = values

    def _look_where_they_are(self) -> None:
        """Note the addresses of the arrays that are not the same as ever."""
        for number, (task, seen) in enumerate(zip(self._tasks, self._seen)):
            parameter, state = task.parameter, task.state
            now = [parameter.data, parameter.diff, *[state[slot] for slot in self._slots]]
            if len(seen) != len(now) or not all(map(is_, seen, now)):
                self._seen[number] = now
                addresses = [array.__array_interface__["data"][0] for array in now]
                self._addresses[number, : len(now)] = addresses

    def figures(self) -> List[Dict[str, Statistics]]:
        """Return for each parameter the figures that the last run took."""
        first, table = self._first_chunks, self._figures
        sums = table[first]
        for row, (start, past) in enumerate(zip(first, [*first[1:], len(table)])):
            # One after the other, as statistics.py says; NumPy's own sums go in pairs.
            for number in range(start + 1, past):
                sums[row] += table[number]
        finite = self._counts[:, np.newaxis] - sums[..., layout.NONFINITE]
        some = finite > 0
        columns = [
            np.sqrt(sums[..., layout.SUMSQ]),
            sums[..., layout.TOTAL] / np.maximum(finite, 1),
            np.where(some, np.minimum.reduceat(table[..., layout.MIN], first, axis=0), 0),
            np.where(some, np.maximum.reduceat(table[..., layout.MAX], first, axis=0), 0),
            sums[..., layout.ZEROS].astype(int),
            sums[..., layout.NONFINITE].astype(int),
        ]
        l2, mean, low, high, zeros, nonfinite = (column.tolist() for column in columns)
        return [
            {
                name: Statistics(
                    l2[row][q], mean[row][q], low[row][q], high[row][q], zeros[row][q],
                    nonfinite[row][q],
                )
                for name, q in self._quantities
            }
            for row in range(len(self._tasks))
        ]  # fmt: skip


def _shares(counts: np.ndarray) -> List[tuple[int, int]]:
    """Return each thread's chunks, first and last, with as many values to each thread."""
    values = int(counts.sum())
    threads = max(1, min(thread_count(), values // _WORTH_A_THREAD))
    ends = np.cumsum(counts)
    bounds = [int(np.searchsorted(ends, values * t / threads)) for t in range(1, threads)]
    bounds = [0, *bounds, len(counts)]
    return list(zip(bounds, bounds[1:]))


@cache
def thread_count() -> int:
    """Return how many threads update: ``OMP_NUM_THREADS``, or as many as there are cores for us."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() and int(said) else len(os.sched_getaffinity(0))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, thread_count() - 1), "caffe-pysgd")
