"""The fused update of many parameters: tables, threads, and one call of the compiled pass each."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor, wait
from enum import Enum
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.update.fused import layout
from caffe_pysgd.update.fused.keeping import keeping
from caffe_pysgd.update.fused.program import Program, Untraceable, trace
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels.libm import address_of_powf
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.statistics import CHUNK, LANES, Statistics

F = np.float32

Compiled = Callable[..., None]

_DATA, _DIFF, _STATE = map(attrgetter, ("data", "diff", "state"))

# Waking another thread costs a quarter of a millisecond on a virtual machine: it must have as much
# to do.
_WORTH_A_THREAD = 1 << 19


class Leaves(Enum):
    """What an update leaves in a diff."""

    UPDATE = layout.LEAVES_UPDATE  # as Caffe does
    ZEROS = layout.LEAVES_ZEROS
    ANYTHING = layout.LEAVES_ANYTHING  # which saves writing it


class Unfit(NamedTuple):
    """What was not finite in the update of a parameter.

    Attributes:
        row: which parameter.
        values: how many values.
        first: where the first of them is.
        gradient: what the rule saw there.
    """

    row: int
    values: int
    first: int
    gradient: np.float32


Compiles = Callable[[Program, bool, bool], Compiled]


class _Passes:
    """The passes over memory that a rule takes.

    Attributes:
        keeps: whether two keep on the way what they can, if no figures are taken.
        scalars, scalars_address: one row for each parameter.
        sums: for each program, where its pass leaves sums of squares: a row for each chunk, with
            all lanes.
        scratch_addresses: one for each thread.
    """

    def __init__(
        self,
        programs: Tuple[Program, ...],
        compiles: Compiles,
        keeps: bool,
        parameters: int,
        chunks: int,
        threads: int,
    ) -> None:
        self._programs, self._compiles = programs, compiles
        self._short = keeping(programs) if keeps else ()
        self.keeps = bool(self._short)
        self._compiled: Dict[Tuple[bool, bool], List[Compiled]] = {}
        self.scalars = np.zeros((parameters, layout.RULE + programs[-1].scalars), F)
        self.scalars_address = self.scalars.ctypes.data
        self.sums = [np.zeros((chunks, len(program.norms), LANES)) for program in programs]
        norms = max(len(program.norms) for program in programs)
        self._scratches = [layout.scratch(norms) for _ in range(threads)]
        self.scratch_addresses = [scratch.ctypes.data for scratch in self._scratches]

    def compiled(self, scaled: bool, measure: bool) -> List[Compiled]:
        """Return them as code.

        Args:
            scaled: gradients are clipped or normalized.
            measure: the last takes figures.

        Raises:
            Untraceable: they cannot be compiled.
        """
        code = self._compiled.get((scaled, measure))
        if code is None:
            programs = self._programs if measure or not self.keeps else self._short
            last = len(programs) - 1
            code = [
                self._compiles(program, scaled, measure and number == last)
                for number, program in enumerate(programs)
            ]
            self._compiled[scaled, measure] = code
        return code


class FusedUpdate:
    """Takes all parameters of one rule from their gradients to their new weights.

    Args:
        rule: what is traced: its ``update`` and ``slots``.
        parameters: all with the same ``regularization_type``.
        compiles: returns the pass of a program, for gradients that are scaled or not, with figures
            or without.
        checked: whether it is a user's own: its update is looked at, and its gradients stay until
            the last pass.

    Raises:
        Untraceable: the rule is no program for single values, or cannot be compiled.
    """

    def __init__(
        self,
        rule: Any,
        parameters: Sequence[Parameter],
        compiles: Compiles,
        checked: bool,
    ) -> None:
        self._rule, self._compiles, self._checked = rule, compiles, checked
        self._parameters = list(parameters)
        self._arrays: List[np.ndarray] = []  # kept, so that the addresses stay theirs
        self._seen = -1  # of all changes
        self._find_slots = list(map(itemgetter, rule.slots))
        self._addresses = np.zeros((len(parameters), layout.SLOTS + len(rule.slots)), np.int64)
        self._decays = np.array([p.decay for p in parameters], F)
        self._gradient_decays = F(0) if rule.decoupled_decay else self._decays
        alike: Dict[HyperParameters, List[int]] = {}
        for number, p in enumerate(parameters):
            alike.setdefault(p.h, []).append(number)
        self._alike: List[Tuple[HyperParameters, Any]] = [
            (h, np.array(rows) if len(alike) > 1 else slice(None)) for h, rows in alike.items()
        ]
        self._scaled = any(h.scales_gradients for h in alike)
        self._counts = np.array([p.count for p in parameters])
        self._chunks = np.array(
            [
                (number, start, min(CHUNK, p.count - start), 0, -1, 0)
                for number, p in enumerate(parameters)
                for start in range(0, p.count, CHUNK)
            ],
            np.int64,
        ).reshape(-1, layout.CHUNK_COLUMNS)
        rows = np.arange(len(parameters))
        self._first_chunks = np.searchsorted(self._chunks[:, layout.ROW], rows)
        quantities = layout.FIRST_SLOT + len(rule.slots)
        self._figures = np.empty((len(self._chunks), quantities), layout.FIGURES)
        self._quantities = [
            ("gradient", layout.GRADIENT),
            ("regularized", layout.REGULARIZED),
            *((slot, layout.FIRST_SLOT + number) for number, slot in enumerate(rule.slots)),
            ("update", layout.UPDATE),
            ("data", layout.NEW_DATA),
        ]
        values = int(self._counts.sum())
        self._threads = max(1, min(thread_count(), values // _WORTH_A_THREAD, len(self._chunks)))
        self._handed_out = np.zeros(1, np.int64)
        tables = (self._addresses, self._chunks, self._figures, self._handed_out)
        (
            self._addresses_address, self._chunks_address, self._figures_address, self._counter
        ) = (table.ctypes.data for table in tables)  # fmt: skip
        self._powf = address_of_powf()
        self._programs: Tuple[Program, ...] = ()
        self._passes: _Passes  # for these
        self._traced_for: Optional[bytes] = None
        self._rate_columns: Optional[List[int]] = None
        self._trace(np.zeros(len(parameters), F), 0)
        self._passes.compiled(self._scaled, measure=False)

    def run(
        self,
        rates: np.ndarray,
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
            Untraceable: the rule is no such program any more, or cannot be compiled; nothing was
                updated.
        """
        self._look_where_they_are()
        if self._traced_for is None:
            self._trace(rates, iteration)
        elif rates.tobytes() != self._traced_for:
            self._take_rates(rates, iteration)
        passes = self._passes
        keeps = passes.keeps and not measure
        treatment = clip, normalization, self._gradient_decays
        known: List[np.ndarray] = []
        # In an update that clips nothing, too: another pass would not have been self-checked.
        scaled = self._scaled or not clip == normalization == 1
        for number, compiled in enumerate(passes.compiled(scaled, measure)):
            for column, value in zip((layout.CLIP, layout.NORMALIZATION, layout.DECAY), treatment):
                passes.scalars[:, column] = value
            if self._programs[number].norms:
                sums = passes.sums[number]
                sums[...] = 0
                self._call(compiled, sums.ctypes.data, 0)
                known += list(np.sqrt(self._added_up(_in_order(sums))).astype(F).T)
                self._trace(rates, iteration, known)
                if keeps:  # the gradient's place is taken
                    treatment = F(1), F(1), F(0)
            else:
                if self._checked:
                    self._chunks[:, layout.UNFIT] = 0
                if measure:
                    self._figures[...] = layout.NO_FIGURES
                self._call(compiled, self._figures_address, leaves.value)

    def _call(self, compiled: Compiled, figures: int, leaves: int) -> None:
        """Let all threads do a pass, chunk by chunk; one that comes late finds less to do."""
        passes = self._passes
        tables = (self._addresses_address, passes.scalars_address, self._chunks_address)
        handed_out = (self._counter, len(self._chunks))
        self._handed_out[0] = 0
        first, *more = (
            (*tables, *handed_out, scratch, self._powf, figures, leaves)
            for scratch in passes.scratch_addresses
        )
        here = _libc().sched_getcpu() if more else -1
        others = [_pool().submit(_elsewhere, here, compiled, call) for call in more]
        compiled(*first)
        if others:
            wait([other for other in others if not other.cancel()])

    def _take_rates(self, rates: np.ndarray, iteration: int) -> None:
        """Bring the scalars up to date where nothing but the rates has changed.

        A rule of the user's own might look at them unseen, so it is traced again.
        """
        if self._checked or self._rate_columns is None:
            self._trace(rates, iteration)
            return
        for column in self._rate_columns:
            self._passes.scalars[:, column] = rates
        self._traced_for = rates.tobytes()

    def _trace(self, rates: np.ndarray, iteration: int, norms: Sequence[np.ndarray] = ()) -> None:
        """Bring passes and scalars up to date; norms that nobody knows yet are taken for 1.

        A rule may branch on anything but values and scalars of single parameters. So it may do
        something else at another iteration, and is traced again unless it does not look at that.

        Raises:
            Untraceable: the rule is no program any more.
        """
        self._traced_for = None
        traced = [
            trace(
                self._rule,
                h,
                rates[rows],
                self._decays[rows],
                iteration,
                [norm[rows] for norm in norms],
                self._programs,
            )
            for h, rows in self._alike
        ]
        programs = traced[0].programs
        if any(one.programs != programs for one in traced[1:]):
            raise Untraceable("it does not do the same with all hyper-parameters")
        if programs is not self._programs:
            if norms:
                raise Untraceable("what it does depends on a norm")
            sizes = len(self._parameters), len(self._chunks), self._threads
            self._passes = _Passes(programs, self._compiles, not self._checked, *sizes)
            self._programs = programs
        for (_, rows), one in zip(self._alike, traced):
            for column, values in enumerate(one.scalars, layout.RULE):
                self._passes.scalars[rows, column] = values
        among = traced[0].rates
        self._rate_columns = None if among is None else [layout.RULE + number for number in among]
        if not any(one.reads_iteration for one in traced):
            self._traced_for = rates.tobytes()

    @property
    def takes_powers(self) -> bool:
        """Whether the rule takes powers, which without ``exact`` are not libm's."""
        return any(operation.name.startswith("powx") for operation in self._programs[-1].operations)

    @property
    def takes_norms(self) -> bool:
        """Whether the rule takes norms over a parameter."""
        return len(self._programs) > 1

    def unfit(self) -> Optional[Unfit]:
        """Return what in the last update was not finite, in the first parameter where it was so."""
        if not self._checked:
            return None
        found = np.flatnonzero(self._chunks[:, layout.UNFIT])
        if not found.size:
            return None
        chunk = self._chunks[found[0]]
        row = chunk[layout.ROW]
        count = self._chunks[self._chunks[:, layout.ROW] == row, layout.UNFIT].sum()
        gradient = chunk[layout.UNFIT_GRADIENT :].astype(np.int32).view(F)[0]
        return Unfit(int(row), int(count), int(chunk[layout.UNFIT_AT]), gradient)

    def _look_where_they_are(self) -> None:
        """Note the addresses of the arrays, unless they are the same as ever."""
        if self._seen == Parameter.changes:
            return
        parameters = self._parameters
        now = [*map(_DATA, parameters), *map(_DIFF, parameters)]
        for find in self._find_slots:
            now += map(find, map(_STATE, parameters))
        addresses = [array.__array_interface__["data"][0] for array in now]
        self._addresses[...] = np.reshape(addresses, self._addresses.T.shape).T
        self._arrays, self._seen = now, Parameter.changes

    def _added_up(self, table: np.ndarray) -> np.ndarray:
        """Return the sums of each parameter, given those of each chunk.

        They are added one after the other, as ``statistics.py`` says; NumPy's own sums go in pairs.
        """
        sums: np.ndarray = table[self._first_chunks]
        past = [*self._first_chunks[1:], len(table)]
        for row in np.flatnonzero(self._counts > CHUNK):
            chunks = table[self._first_chunks[row] : past[row]]
            sums[row] = np.add.accumulate(chunks, axis=0)[-1]
        return sums

    def figures(self) -> List[Dict[str, Statistics]]:
        """Return for each parameter the figures that the last run took."""
        first, table, last = self._first_chunks, self._figures, self._programs[-1]
        if last.update in last.state:  # the update value is the state, of which figures were taken
            slot = layout.FIRST_SLOT + last.state.index(last.update)
            table[:, layout.UPDATE] = table[:, slot]
        nonfinite = np.add.reduceat(table["nonfinite"], first, axis=0)
        finite = self._counts[:, np.newaxis] - nonfinite
        some = finite > 0
        low, high = table["min"].min(axis=-1), table["max"].max(axis=-1)
        columns = [
            np.sqrt(self._added_up(_in_order(table["sumsq"]))),
            self._added_up(_in_order(table["total"])) / np.maximum(finite, 1),
            np.where(some, np.minimum.reduceat(low, first, axis=0), 0),
            np.where(some, np.maximum.reduceat(high, first, axis=0), 0),
            np.add.reduceat(table["zeros"], first, axis=0),
            nonfinite,
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


def _in_order(lanes: np.ndarray) -> np.ndarray:
    """Return the sums of lanes, added one after the other."""
    sums: np.ndarray = np.add.accumulate(lanes, axis=-1)[..., -1]
    return sums


def _elsewhere(core: int, compiled: Compiled, call: Sequence[int]) -> None:
    """Do a pass in this thread on any core but the one where another thread does it.

    A thread that wakes is put on the core that woke it where no other is idle; and right after
    backward none is, for a BLAS's threads spin. There it would stay for milliseconds.
    """
    others = _cores() - {core}
    if others:
        os.sched_setaffinity(0, others)
    compiled(*call)


@lru_cache(maxsize=None)
def _cores() -> FrozenSet[int]:
    return frozenset(os.sched_getaffinity(0))


@lru_cache(maxsize=None)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@lru_cache(maxsize=None)
def thread_count() -> int:
    """Return how many threads update: ``OMP_NUM_THREADS``, or as many as there are cores for us."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() and int(said) else len(_cores())


@lru_cache(maxsize=None)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, thread_count() - 1), "caffe-pysgd")
