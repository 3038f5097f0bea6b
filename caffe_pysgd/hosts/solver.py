"""The solver host: pycaffe's solvers with the whole loop in Python.

``Solver::Step``, ``Solve``, ``Test`` and ``Snapshot`` of Caffe's ``src/caffe/solver.cpp`` read side
by side with this file: the same order, the same log lines. A native solver builds the nets, so that
random numbers fall as they do in Caffe, and is not asked for anything else.
"""

from __future__ import annotations

import operator
import os
import tempfile
import time
import warnings
import weakref
from enum import Enum
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import SettingError, nearest
from caffe_pysgd.hosts.audience import close_all, observers_of, tell_updated
from caffe_pysgd.hosts.backend import (
    Source,
    learnable_blobs,
    neutral_files,
    outputs,
    refuse_unfit_nets,
    resolve_source,
    settings_of,
)
from caffe_pysgd.hosts.build import announcement, build_updater, clipping_line
from caffe_pysgd.hosts.losses import SmoothedLoss
from caffe_pysgd.hosts.memory import Memory, never_free
from caffe_pysgd.hosts.ranks.ranks import Ranks
from caffe_pysgd.hosts.showing import History, solver_html, solver_line
from caffe_pysgd.hosts.snapshot_writer import adopt_state, write_snapshot
from caffe_pysgd.hosts.training_bar import training_bar
from caffe_pysgd.run.own_snapshots import Claim, chosen_snapshot, make_snapshot_folder
from caffe_pysgd.run.resolve import with_parameters_of
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import AuditSettings
from caffe_pysgd.run.start import check_native_snapshot
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.solver_file import set_field
from caffe_pysgd.update import NATIVE_RULES, HyperParameters
from caffe_pysgd.update.policies import caffe as lr_policies

Callback = Callable[[], None]

# The hyper-parameters that ``SolverParameter`` has a field for.
_IN_PARAM = [
    name
    for name in HyperParameters.__dataclass_fields__
    if name in pycaffe.messages().SolverParameter.DESCRIPTOR.fields_by_name
]

# What Caffe's log calls a policy that says when it steps.
_STATUS = {"multistep": "MultiStep", "plateau": "Plateau"}


# How alike two names are of which one is likely a misspelling of the other.
_LIKELY = 0.8


class Action(Enum):
    """What a signal asks of a running solver, as in Caffe's ``SolverAction``."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


class Solver:
    """A solver of pycaffe's, in Python; the drop-in for ``caffe.SGDSolver`` and its five siblings.

    Constructor, attributes and methods are pycaffe's. Beyond them: ``iter`` and every
    hyper-parameter (``solver.momentum``, ``solver.base_lr``, ...) can be set, ``history`` shows the
    history, ``compute_update`` the update before it is applied, and exceptions are Python's.

    Args:
        source: a solver file, a YAML, or a ``SolverParameter``.
        audit: what is recorded, where that is not for the YAML to say.
        ranks: what makes this solver one of several; None for alone.

    Attributes:
        net: the train net, Caffe's own.
        test_nets: the test nets, Caffe's own.
        iter: the number of updates done; setting it takes the rate along.
        param: the ``SolverParameter``.
        smoothed_loss: the mean of the last ``average_loss`` losses.
        updater: the update, with its parameters, states and observers.
        undisturbed: nothing but Caffe's own layers and this class has a hand in net and ``param``
            while it trains, so an update need not look what became of them. Not so by default.
        progress: whether ``step`` and ``solve`` show a bar; None, the default, for one in a
            notebook only.

    Raises:
        UserError: anything that would stop training later.
    """

    solver_type: Optional[str] = None
    undisturbed = False
    progress: Optional[bool] = None

    def __init__(
        self,
        source: Source,
        audit: Optional[AuditSettings] = None,
        ranks: Optional[Ranks] = None,
    ) -> None:
        run = source if isinstance(source, Run) else resolve_source(source)
        if self.solver_type and run.rule != NATIVE_RULES[self.solver_type].name:
            expected = f"'{self.solver_type}' ({type(self).__name__}); get_solver() takes any type"
            raise SettingError("type", run.solver.type, expected, where=run.source)
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
            self._native = pycaffe.compiled().get_solver(str(neutral_files(run, Path(directory))))
        self.net = self._native.net
        run = with_parameters_of(run, self.net)
        self._run = run = run.with_solver()  # its own, to which a user may set
        self.test_nets = list(self._native.test_nets)
        refuse_unfit_nets(run, self.net, self.test_nets)
        self._claim = Claim(run)
        self.param = run.solver
        self._iter = 0
        self._blobs = learnable_blobs(run, self.net)
        settings = settings_of(run, audit)
        make_snapshot_folder(run)
        native = self._native
        observers = observers_of(settings, "solver", run, lambda: never_free(native))
        self.updater = build_updater(settings, self._blobs, observers=observers)
        self._memory = Memory(self.updater, self._blobs)
        self._ranks = ranks
        if ranks:
            states = (array for state in self.updater.states for array in state.values())
            ranks.begin(settings, self.updater, 0, states)
        weakref.finalize(self, close_all, self.updater.observers)
        self._heeded = type(run.solver)()
        self._callbacks: List[Tuple[Callback, Callback]] = []
        self._requested_action: Callable[[], Action] = lambda: Action.NONE
        self._stopping = False
        self.smoothed_loss = np.float32(0)
        self._timer, self._timed_iteration = time.perf_counter(), 0
        _log(announcement(settings, self.updater, "fresh"))

    # -- training ---------------------------------------------------------------------------------

    def step(self, iterations: int) -> None:
        """Train for a number of iterations (``Solver::Step``).

        Raises:
            TypeError: it is no whole number.
        """
        iterations = operator.index(iterations)
        self._claim.take()
        with training_bar(self, self.iter + iterations):
            self._step(iterations)

    def _step(self, iterations: int) -> None:
        start, stop = self.iter, self.iter + iterations
        self._smoothing = SmoothedLoss(start, self.param.average_loss)
        self.smoothed_loss = np.float32(0)
        self._timer = time.perf_counter()
        cleared = False  # by the update before
        while self.iter < stop:
            if not cleared:
                self.net.clear_param_diffs()
            if self._test_due() and (self.iter > 0 or self.param.test_initialization):
                self._test_all()
                if self._stopping:
                    break
            for observer in self.updater.observers:
                observer.iteration_begins()
            for on_start, _ in self._callbacks:
                on_start()
            loss = np.float32(0)
            for number in range(self.param.iter_size):
                loss += np.float32(self._forward(self.net))
                self._backward(last_pass=number == self.param.iter_size - 1)
            loss /= np.float32(self.param.iter_size)
            self.smoothed_loss = self._smoothing.add(self.iter, loss)
            self.updater.smoothed_loss = self.smoothed_loss
            for observer in self.updater.observers:
                observer.loss(loss, self.smoothed_loss)
            if self._display_due():
                self._display()
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self.apply_update()
            cleared = self.undisturbed and self.updater.clears_diffs
            request = self._requested_action()
            if request is Action.SNAPSHOT or self._snapshot_due():
                self.snapshot()
            if request is Action.STOP:
                self._stopping = True
                break

    def solve(self, resume_file: Optional[str] = None) -> None:
        """Train up to ``max_iter``, from a ``.solverstate`` if one is given (``Solver::Solve``)."""
        param = self.param
        _log(f"Solving {self._run.net.name}")
        _log(f"Learning Rate Policy: {param.lr_policy}")
        self._stopping = False
        if resume_file:
            _log(f"Restoring previous solver status from {os.fsdecode(resume_file)}")
            self.restore(resume_file)
        self.step(param.max_iter - self.iter)
        if param.snapshot_after_train and not self._snapshot_due():
            self.snapshot()
        if self._stopping:
            _log("Optimization stopped early.")
            return
        if self._display_due():
            loss = np.float32(self._forward(self.net))
            self.smoothed_loss = self._smoothing.add(self.iter, loss)
            _log(f"Iteration {self.iter}, loss = {self.smoothed_loss:g}")
        if self._test_due():
            self._test_all()
        _log("Optimization Done.")

    def apply_update(self) -> None:
        """Turn the gradients in ``diff`` into new weights; count the iteration."""
        if not self.undisturbed:
            self._memory.fetch()
            self._heed_param()
        if self._ranks:
            self._ranks.complete(self.iter)
        step = self.updater.current_step
        rate = self.updater.step(self.iter)
        status = _STATUS.get(self.updater.h.lr_policy)
        if status and self.updater.current_step != step:
            step = self.updater.current_step
            _log(f"{status} Status: Iteration {self.iter}, step = {step}")
        if self._display_due():
            _log(f"Iteration {self.iter}, lr = {rate:g}")
        clipped = clipping_line(self.updater)
        if clipped:
            _log(clipped)
        self._iter += 1
        tell_updated(self.updater, self._iter - 1, rate)

    def compute_update(self) -> Dict[str, Floats]:
        """Return the update that ``apply_update`` would subtract, by parameter; change nothing."""
        self._memory.fetch()
        self._heed_param()
        values = self.updater.compute(self.iter)
        return {p.name: value.reshape(p.shape) for p, value in zip(self._run.parameters, values)}

    # -- what can be seen and set -----------------------------------------------------------------

    @property
    def iter(self) -> int:
        """The number of updates done."""
        return self._iter

    @iter.setter
    def iter(self, iteration: int) -> None:
        iteration = operator.index(iteration)
        step = lr_policies.step_before(self.updater.h, iteration)
        if self.updater.h.lr_policy == "plateau":  # which has no step of an iteration
            step = self.updater.current_step
        self.updater.resume(iteration, step, self.updater.plateau)
        self._iter = iteration

    @property
    def lr(self) -> float:
        """The global rate at this iteration."""
        self._heed_param()
        return float(self.updater.rates.foresee(self.iter, self.updater.smoothed_loss))

    @property
    def history(self) -> History:
        """The history by parameter name, in the parameter's shape: arrays to look at and to change.

        A rule with several slots has ``conv1/0.m``, ``conv1/0.v``.
        """
        history = History()
        for index, slot in self._run.settings().state_layout():
            parameter, state = self._run.parameters[index], self.updater.states[index]
            name = parameter.name if len(state) == 1 else f"{parameter.name}.{slot}"
            history[name] = state[slot].reshape(parameter.shape)
        return history

    def __repr__(self) -> str:
        return solver_line(
            type(self).__name__, self._run, self.updater, self.iter, self.lr, self.smoothed_loss
        )

    def _repr_html_(self) -> str:
        return solver_html(repr(self), self.updater)

    def __getattr__(self, name: str) -> Any:
        if name in HyperParameters.__dataclass_fields__:
            return getattr(self.updater.h, name)
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            super().__setattr__(name, value)
            return
        if name not in HyperParameters.__dataclass_fields__:
            if not name.startswith("_") and not hasattr(type(self), name):
                self._warn_of_misspelling(name)
            super().__setattr__(name, value)
            return
        known_to_caffe = name in _IN_PARAM
        if known_to_caffe:  # a value that its field does not take changes nothing
            set_field(type(self.param)(), name, value)
        self.updater.change(self.iter, **{name: value})
        if known_to_caffe:
            set_field(self.param, name, value)

    def _warn_of_misspelling(self, name: str) -> None:
        """Warn of a new attribute that is called almost as a hyper-parameter is."""
        fix = nearest(name, HyperParameters.__dataclass_fields__, _LIKELY)
        if fix:
            what = f"{type(self).__name__} has no setting '{name}'{fix}"
            warnings.warn(f"{what} It is an attribute of your own now", stacklevel=3)

    def _heed_param(self) -> None:
        """Follow what was set in ``param``: pycaffe's users set ``solver.param.base_lr``."""
        if self.param == self._heeded:
            return
        h = self.updater.h
        said = {name: getattr(self.param, name) for name in _IN_PARAM}
        said = {n: v if np.isscalar(v) else tuple(v) for n, v in said.items()}
        changed = {name: value for name, value in said.items() if value != getattr(h, name)}
        if changed:
            self.updater.change(self.iter, **changed)
        self._heeded.CopyFrom(self.param)

    def add_callback(self, on_start: Callback, on_gradients_ready: Callback) -> None:
        """Call these at the start of every iteration, and when its gradients are complete."""
        self._callbacks.append((on_start, on_gradients_ready))

    def set_action_function(self, requested_action: Callable[[], Action]) -> None:
        """Ask this function after every iteration and every test batch whether to go on."""
        self._requested_action = requested_action

    def share_weights(self, net: Net) -> None:
        """Let another net use this one's weights."""
        net.share_with(self.net)

    # -- snapshots --------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Write ``.caffemodel`` and ``.solverstate`` as the native solver does."""
        self._claim.take()
        paths = write_snapshot(self._run, self.net, self.updater, self.iter)
        for observer in self.updater.observers:
            observer.snapshot_taken(self.iter, paths)

    def restore(self, state_file: str) -> None:
        """Go on from a ``.solverstate``, of this solver or of a native one of the same type.

        ``auto`` takes the newest complete one with the solver's ``snapshot_prefix``, if any.

        Raises:
            UserError: it is another net's or another solver type's; nothing is changed.
        """
        path = chosen_snapshot(self._run, os.fsdecode(state_file), check_native_snapshot, _log)
        if path is None:
            return
        state = check_native_snapshot(Path(path), self._run)
        self._claim.take(path)
        self.net.copy_from(str(state.learned_net))
        adopt_state(self._run, self.updater, state)
        self._iter = state.iteration
        for observer in self.updater.observers:
            observer.restored()

    def close(self) -> None:
        """End the record of the run, if there is one; another iteration begins a new session."""
        close_all(self.updater.observers)

    # -- the pieces of the loop -------------------------------------------------------------------

    def _forward(self, net: Net) -> float:
        loss: float = net._forward(0, len(net.layers) - 1)
        return loss

    def _backward(self, last_pass: bool) -> None:
        if self._ranks:
            self._ranks.backward(self.net, last_pass)
        else:
            self.net._backward(len(self.net.layers) - 1, 0)

    def _display(self) -> None:
        lapse = time.perf_counter() - self._timer
        per_second = (self.iter - self._timed_iteration) / (lapse or 1)
        speed = f"{per_second:g} iter/s, {lapse:g}s/{self.param.display} iters"
        _log(f"Iteration {self.iter} ({speed}), loss = {self.smoothed_loss:g}")
        self._timer, self._timed_iteration = time.perf_counter(), self.iter
        for number, (name, value, weight) in enumerate(outputs(self.net)):
            _log(f"    Train net output #{number}: {name} = {value:g}{_loss_part(value, weight)}")

    def _test_all(self) -> None:
        for number in range(len(self.test_nets)):
            if not self._stopping:
                self._test(number)

    def _test(self, number: int) -> None:
        _log(f"Iteration {self.iter}, Testing net (#{number})")
        net, batches = self.test_nets[number], self.param.test_iter[number]
        net.share_with(self.net)
        loss, scores = np.float32(0), np.zeros(0, np.float32)
        for batch in range(batches):
            if self._stop_requested():
                _log("Test interrupted.")
                return
            loss += np.float32(self._forward(net))
            found = np.array([value for _, value, _ in outputs(net)], np.float32)
            scores = scores + found if batch else found
        if self.param.test_compute_loss:
            _log(f"Test loss: {loss / np.float32(batches):g}")
        means = scores / np.float32(batches)
        for index, ((name, _, weight), mean) in enumerate(zip(outputs(net), means)):
            _log(f"    Test net output #{index}: {name} = {mean:g}{_loss_part(mean, weight)}")
        names = [name for name, _, _ in outputs(net)]
        rows = list(zip(range(len(names)), names, means))
        for observer in self.updater.observers:
            observer.tested(self.iter, number, rows)

    def _stop_requested(self) -> bool:
        """Carry out what was requested while testing; return whether that was to stop."""
        request = self._requested_action()
        while request is not Action.NONE:
            if request is Action.SNAPSHOT:
                self.snapshot()
            else:
                self._stopping = True
            request = self._requested_action()
        return self._stopping

    def _display_due(self) -> bool:
        return bool(self.param.display and self.iter % self.param.display == 0)

    def _test_due(self) -> bool:
        return bool(self.param.test_interval and self.iter % self.param.test_interval == 0)

    def _snapshot_due(self) -> bool:
        return bool(self.param.snapshot and self.iter % self.param.snapshot == 0)


class SGDSolver(Solver):
    """``caffe.SGDSolver`` in Python."""

    solver_type: Optional[str] = "SGD"


class NesterovSolver(SGDSolver):
    """``caffe.NesterovSolver`` in Python."""

    solver_type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """``caffe.AdaGradSolver`` in Python."""

    solver_type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """``caffe.RMSPropSolver`` in Python."""

    solver_type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """``caffe.AdaDeltaSolver`` in Python."""

    solver_type = "AdaDelta"


class AdamSolver(SGDSolver):
    """``caffe.AdamSolver`` in Python."""

    solver_type = "Adam"


class OtherSolver(SGDSolver):
    """A solver of a rule that Caffe has not."""

    solver_type = None


_SOLVERS: List[Type[SGDSolver]] = [
    SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver,
]  # fmt: skip


def get_solver(source: Source) -> SGDSolver:
    """Return the solver that a file describes, whatever its type."""
    run = resolve_source(source)
    rules = {NATIVE_RULES[str(cls.solver_type)].name: cls for cls in _SOLVERS}
    return rules.get(run.rule, OtherSolver)(run)


def _log(line: str) -> None:
    pycaffe.compiled().log(line)


def _loss_part(value: np.float32, weight: float) -> str:
    return f" (* {weight:g} = {np.float32(weight) * value:g} loss)" if weight else ""
