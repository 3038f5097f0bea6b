"""The hook host: a pycaffe solver whose ``ApplyUpdate`` is Python's."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from caffe_pysgd.hosts.audience import close_all, observers_of, tell_updated
from caffe_pysgd.hosts.backend import (
    Source,
    learnable_blobs,
    neutral_files,
    refuse_unfit_nets,
    resolve_source,
    settings_of,
)
from caffe_pysgd.hosts.build import announcement, build_updater, clipping_line
from caffe_pysgd.hosts.hook_loop import CaffesLoop
from caffe_pysgd.hosts.memory import Memory, never_free
from caffe_pysgd.hosts.showing import solver_html, solver_line
from caffe_pysgd.hosts.snapshot_writer import adopt_state, write_snapshot
from caffe_pysgd.run.own_snapshots import Claim, chosen_snapshot, make_snapshot_folder
from caffe_pysgd.run.resolve import with_parameters_of
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.start import check_native_snapshot
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import SolverState, write_solver_state

_caffe: Any = pycaffe.compiled()
Callback = Callable[[], None]


def take_over(source: Source) -> TakenOverSolver:
    """Return a pycaffe solver whose update is Python's::

        solver = caffe_pysgd.take_over("solver.prototxt")
        solver.step(100)

    Args:
        source: a solver file, a YAML, or a ``SolverParameter``.

    Raises:
        UserError: anything that would stop the run later.
    """
    run = resolve_source(source)
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        return TakenOverSolver(run, neutral_files(run, Path(directory)))


class TakenOverSolver(_caffe.SGDSolver):  # type: ignore[name-defined]
    """A genuine pycaffe solver: ``step``, ``solve``, ``net``, ``test_nets`` are Caffe's.

    Its ``on_gradients_ready`` updates the weights and owns the history, and then there is nothing
    left for the native update to do. Snapshots are written there, too: Caffe's own, at the same
    iteration, would hold a history of zeros, so it takes none.

    Attributes:
        updater: the update, with its parameters, states and observers.
    """

    def __init__(self, run: Run, neutral_solver: Path) -> None:
        super().__init__(str(neutral_solver))
        self.run = run = with_parameters_of(run, self.net)
        refuse_unfit_nets(run, self.net, self.test_nets)
        self._claim = Claim(run)
        self.blobs = learnable_blobs(run, self.net)
        settings = settings_of(run)
        make_snapshot_folder(run)
        this = weakref.ref(self)
        observers = observers_of(settings, "hook", run, lambda: never_free(_there(this)))
        self.updater = build_updater(settings, self.blobs, None, observers, clears_diffs=True)
        self._memory = Memory(self.updater, self.blobs)
        self._loop = CaffesLoop(self)
        weakref.finalize(self, close_all, self.updater.observers)
        self._solving = False
        self._base_lr = self.param.base_lr
        self._callbacks: List[Tuple[Callback, Callback]] = []
        # Caffe keeps the callback for as long as the solver lives: no circle, or neither would go.
        super().add_callback(
            lambda: _there(this)._on_start(), lambda: _there(this)._on_gradients_ready()
        )
        _caffe.log(announcement(settings, self.updater, "fresh"))

    def __repr__(self) -> str:
        return solver_line(type(self).__name__, self.run, self.updater, self.iter)

    def _repr_html_(self) -> str:
        return solver_html(repr(self), self.updater)

    def add_callback(self, on_start: Callback, on_gradients_ready: Callback) -> None:
        """Call these too; ``on_gradients_ready`` while ``diff`` still is the gradient."""
        self._callbacks.append((on_start, on_gradients_ready))

    def _on_start(self) -> None:
        self._loop.iteration_begins()
        for on_start, _ in self._callbacks:
            on_start()

    def _on_gradients_ready(self) -> None:
        self._loop.gradients_ready(self.iter)
        for _, on_gradients_ready in self._callbacks:
            on_gradients_ready()
        self._update()
        done = self.iter + 1  # Caffe counts it when its own update, of nothing, is over
        if self._snapshot_due(done):
            self._write_snapshot(done)
        self._loop.iteration_ends()

    def _update(self) -> None:
        self._memory.fetch()
        self._heed_base_lr()
        rate = self.updater.step(self.iter)
        clipped = clipping_line(self.updater)
        if clipped:
            _caffe.log(clipped)
        tell_updated(self.updater, self.iter, rate)

    def _heed_base_lr(self) -> None:
        """Follow ``solver.param.base_lr``, which pycaffe lets its users set."""
        if self.param.base_lr != self._base_lr:
            self.updater.change(self.iter, base_lr=self.param.base_lr)
            self._base_lr = self.param.base_lr

    def _snapshot_due(self, iteration: int) -> bool:
        solver = self.run.solver
        at_interval = solver.snapshot and iteration % solver.snapshot == 0
        at_end = self._solving and iteration == solver.max_iter and solver.snapshot_after_train
        return bool(at_interval or at_end)

    def apply_update(self) -> None:
        """Update the weights from the gradients in ``diff``, as ``step`` does."""
        self._update()
        super().apply_update()

    def step(self, iterations: int) -> None:
        """Train for a number of iterations."""
        self._claim.take()
        with self._loop.stepping(self.iter):
            super().step(iterations)

    def solve(self, resume_file: Optional[str] = None) -> None:
        """Train up to ``max_iter``, from a ``.solverstate`` if one is given."""
        if resume_file:
            self.restore(resume_file)
        self._claim.take()
        if self.iter >= self.run.solver.max_iter and self._snapshot_due_after_train():
            self.snapshot()  # no iteration is left that would take it
        self._solving = True
        try:
            with self._loop.stepping(self.iter):
                super().solve()
        finally:
            self._solving = False

    def _snapshot_due_after_train(self) -> bool:
        solver = self.run.solver
        taken = solver.snapshot and self.iter % solver.snapshot == 0
        return bool(solver.snapshot_after_train and not taken)

    def snapshot(self) -> None:
        """Write ``.caffemodel`` and ``.solverstate`` as the native solver does."""
        self._claim.take()
        self._write_snapshot(self.iter)

    def _write_snapshot(self, iteration: int) -> None:
        paths = write_snapshot(self.run, self.net, self.updater, iteration)
        for observer in self.updater.observers:
            observer.snapshot_taken(iteration, paths)

    def restore(self, state_file: str) -> None:
        """Go on from a ``.solverstate``, of this solver or of a native one of the same type.

        ``auto`` takes the newest complete one with the solver's ``snapshot_prefix``, if any.

        Raises:
            UserError: it is another net's or another solver type's; nothing is changed.
        """
        path = chosen_snapshot(self.run, os.fsdecode(state_file), check_native_snapshot, _caffe.log)
        if path is None:
            return
        state = check_native_snapshot(Path(path), self.run)
        self._claim.take(path)
        self._restore_native(state)
        adopt_state(self.run, self.updater, state)
        for observer in self.updater.observers:
            observer.restored()

    def close(self) -> None:
        """End the record of the run, if there is one; another iteration begins a new session."""
        close_all(self.updater.observers)

    def _restore_native(self, state: SolverState) -> None:
        """Let the native solver load weights, iteration and step; its own history is zeros."""
        parameters = self.run.parameters
        zeros = [np.zeros(blob.count, np.float32) for blob in self.blobs]
        neutral = SolverState(state.iteration, state.current_step, state.learned_net, zeros)
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
            suffix = ".h5" if state.learned_net.suffix == ".h5" else ""
            path = Path(directory, f"neutral.solverstate{suffix}")
            write_solver_state(path, neutral, [p.shape for p in parameters])
            super().restore(str(path))


def _there(this: weakref.ReferenceType[TakenOverSolver]) -> TakenOverSolver:
    solver = this()
    assert solver is not None  # Caffe calls back only while it lives
    return solver
