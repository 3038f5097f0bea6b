"""The shadow: predicts every update of a stock solver, and compares with what it really did."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.hosts.backend import learnable_blobs, resolve_source
from caffe_pysgd.hosts.build import build_updater
from caffe_pysgd.hosts.snapshot_writer import adopt_state
from caffe_pysgd.run.resolve import with_parameters_of
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.start import check_native_snapshot
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blob, Net, Solver
from caffe_pysgd.stock.snapshots import read_solver_state
from caffe_pysgd.update import Parameter
from caffe_pysgd.update.bits import Comparison, compare

PathLike = Union[str, Path]


@dataclass(frozen=True)
class Divergence:
    """The first value at which the native solver and the shadow part.

    Attributes:
        iteration: counted from 0, as Caffe does.
        parameter, index: where; the index is into the flat array.
        stage: at which stage of the update. ``rate``: ``solver.param.base_lr`` was changed.
            ``update``: the update value is another. ``data``: the update value is the same, the
            weights after it are not. ``update or data``: Caffe had cleared the update value before
            the shadow could look. ``between iterations``: the weights were right after the
            update, and others before the next forward. ``history``: only the history differs.
            ``iteration``: the solver's iteration is not the next one.
        expected, found: the shadow's value and the native solver's.
    """

    iteration: int
    parameter: str
    index: int
    stage: str
    expected: float
    found: float

    def __str__(self) -> str:
        if self.stage == "iteration":
            return (
                f"iteration {self.expected:.0f} was to come, found {self.found:.0f}: the solver "
                "was restored or updated by other means; from there on nothing was compared"
            )
        return (
            f"iteration {self.iteration}, {self.parameter}, index {self.index}: "
            f"expected {_both(self.expected)}, found {_both(self.found)}; "
            f"they diverge at stage: {self.stage}"
        )


@dataclass(frozen=True)
class ShadowReport:
    """What was compared so far.

    Attributes:
        iterations: how many updates were compared.
        values: how many values that were: every weight after every update.
        differ: how many differ in at least one bit.
        max_ulp: the greatest distance, in units in the last place.
        divergence: the first that differs, or None.
    """

    iterations: int
    values: int
    differ: int
    max_ulp: int
    divergence: Optional[Divergence]

    def __str__(self) -> str:
        summary = (
            f"shadow: {self.differ} of {self.values} values differ, max {self.max_ulp} ulp, "
            f"after {self.iterations} iterations"
        )
        return f"{self.divergence}\n{summary}" if self.divergence else summary


def shadow(solver: Any, source: Any, snapshot: Optional[PathLike] = None) -> Shadow:
    """Check a stock solver as it runs; it is not touched::

        solver = caffe.get_solver("solver.prototxt")
        monitor = caffe_pysgd.shadow(solver, "solver.prototxt")
        solver.step(100)
        print(monitor.check())

    Args:
        solver: a native pycaffe solver of any type. Attach the shadow before the first step, or
            right after ``solver.restore``.
        source: the solver file, YAML or ``SolverParameter`` to predict by; pycaffe does not show
            all of a solver's own settings.
        snapshot: the ``.solverstate`` that the solver was restored from, for its history.

    Returns:
        The monitor. It watches for as long as you hold on to it.

    Raises:
        UserError: it is no native solver, its history is not known, or ``source`` or ``snapshot``
            belong to another.
    """
    if hasattr(solver, "updater"):
        raise UserError(
            "this solver's update is Python's already; the shadow checks a native one, such as "
            "caffe.get_solver(...)"
        )
    if not isinstance(solver, pycaffe.compiled().Solver):
        raise SettingError("solver", solver, "a solver of pycaffe's")
    run = source if isinstance(source, Run) else resolve_source(source)
    run.refuse_beyond_caffe()
    return Shadow(solver, run, snapshot)


class _Copy(NamedTuple):
    """A blob's arrays, copied: what the shadow predicts on."""

    data: Floats
    diff: Floats


class Shadow:
    """Hangs on a native solver; made by :func:`shadow`.

    Attributes:
        updater: the prediction, with parameters and history of its own, and with observers.
    """

    def __init__(self, solver: Solver, run: Run, snapshot: Optional[PathLike] = None) -> None:
        self.run = run = run if run.parameters else with_parameters_of(run, solver.net)
        self._solver = weakref.ref(solver)
        self._blobs = _blobs(run, solver.net)
        copies = [_Copy(np.array(blob.data), np.array(blob.diff)) for blob in self._blobs]
        self.updater = build_updater(run.settings(), copies)
        self._next = int(solver.iter)
        self._adopt(snapshot)
        self._base_lr = float(solver.param.base_lr)
        self._pending = False  # an update is predicted and not yet compared
        self._compared = False  # it was compared, and nothing differed
        self._lost = False
        self._other_rate = False
        self._iterations = self._values = self._differ = self._max_ulp = 0
        self.divergence: Optional[Divergence] = None
        this = weakref.ref(self)  # Caffe keeps the callback for as long as the solver lives
        solver.add_callback(_call(this, Shadow._on_start), _call(this, Shadow._on_gradients_ready))

    def _adopt(self, snapshot: Optional[PathLike]) -> None:
        if snapshot is None:
            if self._next:
                raise UserError(
                    f"the solver is at iteration {self._next} and its history is not known: attach "
                    'the shadow before the first step, or give snapshot="….solverstate"'
                )
            return
        state = check_native_snapshot(Path(snapshot), self.run)
        if state.iteration != self._next:
            raise UserError(
                f"{snapshot}: is of iteration {state.iteration}, the solver is at {self._next}"
            )
        adopt_state(self.run, self.updater, state)

    # -- what Caffe calls -------------------------------------------------------------------------

    def _on_start(self) -> None:
        if self._is_next(int(self._living().iter)):
            self._look(diffs_are_cleared=True)

    def _on_gradients_ready(self) -> None:
        iteration = int(self._living().iter)
        if not self._is_next(iteration):
            return
        self._look(diffs_are_cleared=True)
        for parameter, blob in zip(self.updater.parameters, self._blobs):
            parameter.data[...] = blob.data.reshape(-1)
            parameter.diff[...] = blob.diff.reshape(-1)
        self._other_rate = float(self._living().param.base_lr) != self._base_lr
        self.updater.step(iteration)
        self._pending, self._next = True, iteration + 1

    def _is_next(self, iteration: int) -> bool:
        if not self._lost and iteration != self._next:
            self._diverge(Divergence(iteration, "", 0, "iteration", self._next, iteration))
            self._lost = True
        return not self._lost

    # -- what is found ----------------------------------------------------------------------------

    def check(self) -> ShadowReport:
        """Compare what the native solver did last, and return what was found so far.

        Called right after ``solver.step(1)``, it can tell the update value from the weights.
        """
        if not self._lost and int(self._living().iter) == self._next:
            self._look(diffs_are_cleared=False)
        return self.report

    @property
    def report(self) -> ShadowReport:
        """What was found so far; the last update may still wait to be compared."""
        return ShadowReport(
            self._iterations, self._values, self._differ, self._max_ulp, self.divergence
        )

    def check_history(self, state_file: PathLike) -> List[Comparison]:
        """Compare the history with that in a ``.solverstate`` that the solver wrote just now.

        The report counts these values too.
        """
        state = read_solver_state(Path(state_file))
        settings = self.run.settings()
        ours = [self.updater.states[index][slot] for index, slot in settings.state_layout()]
        compared = [
            compare(name, expected, found)
            for name, expected, found in zip(settings.state_names(), ours, state.history)
        ]
        for one, expected, found in zip(compared, ours, state.history):
            self._values += one.count
            self._count(one, expected, found, state.iteration - 1, "history")
        return compared

    def _look(self, diffs_are_cleared: bool) -> None:
        """Compare the last update if that is still to be done, or look whether its weights stay."""
        if not (self._pending or self._compared):
            return
        for parameter, blob in self._weights():
            found = blob.data.reshape(-1)
            one = compare(parameter.name, parameter.data, found)
            if self._pending:
                self._values += one.count
            if one.differ:
                stage = self._stage(parameter, blob, diffs_are_cleared)
                self._count(one, parameter.data, found, self._next - 1, stage)
        if self._pending:
            self._iterations += 1
        self._pending, self._compared = False, self.divergence is None

    def _weights(self) -> Iterator[Tuple[Parameter, Any]]:
        for settings, parameter, blob in zip(
            self.run.parameters, self.updater.parameters, self._blobs
        ):
            if not settings.statistic:  # BatchNorm writes those by itself, in forward
                yield parameter, blob

    def _stage(self, parameter: Parameter, blob: Blob, diffs_are_cleared: bool) -> str:
        if not self._pending:
            return "between iterations"
        if self._other_rate:
            return "rate"
        if diffs_are_cleared:
            return "update or data"
        same = not compare("", parameter.diff, blob.diff.reshape(-1)).differ
        return "data" if same else "update"

    def _count(
        self, one: Comparison, expected: Floats, found: Floats, iteration: int, stage: str
    ) -> None:
        self._differ += one.differ
        self._max_ulp = max(self._max_ulp, one.max_ulp)
        if one.first is not None:
            values = float(expected[one.first]), float(found[one.first])
            self._diverge(Divergence(iteration, one.name, one.first, stage, *values))

    def _diverge(self, divergence: Divergence) -> None:
        if self.divergence is None:
            self.divergence = divergence
            pycaffe.compiled().log(f"caffe-pysgd: shadow: {divergence}")

    def _living(self) -> Solver:
        solver = self._solver()
        if solver is None:
            raise UserError("the solver that this shadow watched is gone")
        return solver


def _call(this: weakref.ReferenceType[Shadow], method: Callable[[Shadow], None]) -> Any:
    def callback() -> None:
        monitor = this()
        if monitor is not None:
            method(monitor)

    return callback


def _blobs(run: Run, net: Net) -> List[Blob]:
    """Return the learnable parameters' blobs, if the net is the one that the run describes."""
    names = list(net._layer_names)
    missing = [p.name for p in run.parameters if p.layer not in names]
    blobs = [] if missing else learnable_blobs(run, net)
    for parameter, blob in zip(run.parameters, blobs):
        if tuple(blob.shape) != parameter.shape:
            missing.append(f"{parameter.name} of shape {parameter.shape}")
    if missing:
        raise UserError(f"{run.source}: describes another net: the solver's has no {missing[0]}")
    return blobs


def _both(value: float) -> str:
    return f"{np.float32(value)!s} ({value.hex()})"
