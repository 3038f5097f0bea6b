"""The fused update of many parameters: tables, threads, and one call of the compiled pass each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from enum import Enum
from functools import cache, partial
from operator import is_
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.update.fused import layout
from caffe_pysgd.update.fused.program import Norms, Program, Untraceable, trace
from caffe_pysgd.update.fused.segments import POWERS, segments
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels.libm import address_of_powf
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.statistics import CHUNK, Statistics

F = np.float32

# Waking another thread costs a quarter of a millisecond on a virtual machine: it must have as much
# to do.
_WORTH_A_THREAD = 1 << 19


class Leaves(Enum):
    """What an update leaves in a diff."""

    UPDATE = layout.LEAVES_UPDATE  # as Caffe does
    ZEROS = layout.LEAVES_ZEROS
    ANYTHING = layout.LEAVES_ANYTHING  # which saves writing it


class _Phase:
    """What a rule does up to the next norm, or to the end."""

    def __init__(
        self, program: Program, compiled: Callable[..., int], scalars: np.ndarray, threads: int
    ) -> None:
        self.program, self.compiled, self.scalars = program, compiled, scalars
        self.reads_iteration = True
        _, arrays = segments(program, exact=True)  # the most that it may need
        self._scratches = [layout.scratch(arrays, len(program.state)) for _ in range(threads)]
        self.scratch_addresses = [scratch.ctypes.data for scratch in self._scratches]


class FusedUpdate:
    """Takes all parameters of one rule from their gradients to their new weights.

    Args:
        rule: what is traced: its ``update`` and ``slots``.
        parameters: all with the same ``regularization_type``.
        compiled: returns the pass of a program.

    Raises:
        Untraceable: the rule is no program for single values.
    """

    def __init__(
        self,
        rule: Any,
        parameters: Sequence[Parameter],
        compiled: Callable[[Program], Callable[..., int]],
    ) -> None:
        self._rule, self._compiled = rule, compiled
        self._parameters = list(parameters)
        self._seen: List[List[np.ndarray]] = [[] for _ in parameters]
        self._addresses = np.zeros((len(parameters), layout.SLOTS + len(rule.slots)), np.int64)
        self._decays = np.array([p.decay for p in parameters], F)
        self._gradient_decays = F(0) if rule.decoupled_decay else self._decays
        alike: Dict[HyperParameters, List[int]] = {}
        for number, p in enumerate(parameters):
            alike.setdefault(p.h, []).append(number)
        self._alike: List[Tuple[HyperParameters, Any]] = [
            (h, np.array(rows) if len(alike) > 1 else slice(None)) for h, rows in alike.items()
        ]
        self._counts = np.array([p.count for p in parameters])
        self._chunks = np.array(
            [
                (number, start, min(CHUNK, p.count - start), 0)
                for number, p in enumerate(parameters)
                for start in range(0, p.count, CHUNK)
            ],
            np.int64,
        ).reshape(-1, layout.CHUNK_COLUMNS)
        rows = np.arange(len(parameters))
        self._first_chunks = np.searchsorted(self._chunks[:, layout.ROW], rows)
        quantities = layout.FIRST_SLOT + len(rule.slots)
        self._figures = np.zeros((len(self._chunks), quantities, layout.FIGURES))
        self._quantities = [
            ("gradient", layout.GRADIENT),
            ("regularized", layout.REGULARIZED),
            *((slot, layout.FIRST_SLOT + number) for number, slot in enumerate(rule.slots)),
            ("update", layout.UPDATE),
            ("data", layout.NEW_DATA),
        ]
        self._shares = _shares(self._chunks[:, layout.COUNT])
        tables = (self._addresses, self._chunks, self._figures)
        self._addresses_address, self._chunks_address, self._figures_address = (
            table.ctypes.data for table in tables
        )
        self._powf = address_of_powf()
        self._phases: List[_Phase] = []
        self._weight_norms: Optional[np.ndarray] = None  # of this update, if a rule asks for them
        self._asked_for_norms = False
        self._traced_for: Optional[np.ndarray] = None
        self._trace_all(np.zeros(len(parameters), F), 0)

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

        Raises:
            Untraceable: the rule is no such program any more; nothing was updated.
        """
        self._look_where_they_are()
        self._weight_norms = None
        now = np.array(rates, F)
        if self._traced_for is None or not np.array_equal(now, self._traced_for):
            self._trace_all(now, iteration)
        known: List[np.ndarray] = []
        for number in range(len(self._phases)):
            if known:
                self._trace(number, now, iteration, known)
            phase = self._phases[number]
            first, last = number == 0, phase is self._phases[-1]
            own = (clip, normalization, self._gradient_decays) if first else (F(1), F(1), F(0))
            for column, value in zip((layout.CLIP, layout.NORMALIZATION, layout.DECAY), own):
                phase.scalars[:, column] = value
            figures = self._figures_address if measure and (first or last) else 0
            self._call(phase, figures, leaves.value if last else layout.LEAVES_VALUE)
            if first and measure and not last:
                raw = self._figures[:, : layout.UPDATE].copy()
            if not last:
                known.append(_norms([p.diff for p in self._parameters]))
            elif known and measure:  # the gradient's, which the last phase did not see
                self._figures[:, : layout.UPDATE] = raw

    def _call(self, phase: _Phase, figures: int, leaves: int) -> None:
        """Let all threads do their shares of a phase."""
        tables = (self._addresses_address, phase.scalars.ctypes.data, self._chunks_address)
        calls = [
            (*tables, first, last, scratch, self._powf, figures, leaves)
            for (first, last), scratch in zip(self._shares, phase.scratch_addresses)
        ]
        others = [_pool().submit(phase.compiled, *call) for call in calls[1:]]
        phase.compiled(*calls[0])
        wait(others)

    def _trace_all(self, rates: np.ndarray, iteration: int) -> None:
        """Bring programs and scalars up to date; norms that nobody knows yet are taken for 1.

        A rule may branch on anything but values and scalars of single parameters. So it may do
        something else at another iteration, and is traced again unless it does not look at that.

        Raises:
            Untraceable: the rule is no program any more.
        """
        self._traced_for = None
        known: List[np.ndarray] = []
        while not self._trace(len(known), rates, iteration, known):
            known.append(np.ones(len(self._parameters), F))
        del self._phases[len(known) + 1 :]
        if not known and not self._phases[0].reads_iteration:
            self._traced_for = rates

    def _trace(
        self, number: int, rates: np.ndarray, iteration: int, known: List[np.ndarray]
    ) -> bool:
        """Bring a phase up to date; return whether it is the last one."""
        phase = self._phases[number] if number < len(self._phases) else None
        traced = [
            trace(
                self._rule,
                h,
                rates[rows],
                self._decays[rows],
                iteration,
                Norms(partial(self._norms_of_weights, rows), [norms[rows] for norms in known]),
                phase.program if phase else None,
            )
            for h, rows in self._alike
        ]
        first = traced[0]
        if any(t.program != first.program for t in traced[1:]):
            raise Untraceable("it does not do the same with all hyper-parameters")
        if phase is None or phase.program is not first.program:
            scalars = np.zeros((len(self._parameters), layout.RULE + first.program.scalars), F)
            phase = _Phase(first.program, self._compiled(first.program), scalars, len(self._shares))
            self._phases[number : number + 1] = [phase]
        for (_, rows), one in zip(self._alike, traced):
            for column, values in enumerate(one.scalars, layout.RULE):
                phase.scalars[rows, column] = values
        phase.reads_iteration = any(one.reads_iteration for one in traced)
        return first.program.last

    def _norms_of_weights(self, rows: Any) -> np.ndarray:
        self._asked_for_norms = True
        if self._weight_norms is None:
            self._weight_norms = _norms([p.data for p in self._parameters])
        return self._weight_norms[rows]

    @property
    def takes_powers(self) -> bool:
        """Whether the rule takes powers, which without ``exact`` are not libm's."""
        programs = (phase.program for phase in self._phases)
        return any(operation.name in POWERS for p in programs for operation in p.operations)

    @property
    def takes_norms(self) -> bool:
        """Whether the rule takes a norm over a parameter."""
        return len(self._phases) > 1 or self._asked_for_norms

    def unfit(self) -> Optional[Tuple[int, int]]:
        """Return a parameter whose last update was not finite, and in how many values."""
        counts = self._chunks[:, layout.UNFIT]
        if not counts.any():
            return None
        row = int(self._chunks[np.flatnonzero(counts)[0], layout.ROW])
        return row, int(counts[self._chunks[:, layout.ROW] == row].sum())

    def _look_where_they_are(self) -> None:
        """Note the addresses of the arrays that are not the same as ever."""
        for number, (p, seen) in enumerate(zip(self._parameters, self._seen)):
            now = [p.data, p.diff, *[p.state[slot] for slot in self._rule.slots]]
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
            for row in range(len(self._parameters))
        ]  # fmt: skip


def _norms(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the L2 norms of arrays, with the bits of a rule's own ``np.linalg.norm``."""
    return np.array([np.linalg.norm(array) for array in arrays], F)


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
