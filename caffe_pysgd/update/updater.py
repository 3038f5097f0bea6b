"""The update itself: rate, gradient stages, rule, apply."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.update import gradient
from caffe_pysgd.update.gradient import Clipping
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import FusedUpdate, Kernels, Leaves, Task
from caffe_pysgd.update.observers import Observer, Stage
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules import RULES, ParameterStep, UpdateRule
from caffe_pysgd.update.schedule import Schedule, schedule_of
from caffe_pysgd.update.statistics import Statistics
from caffe_pysgd.update.treatment import Treatment

F = np.float32
MINUS_ONE, ZERO, ONE = F(-1), F(0), F(1)

ParameterState = Dict[str, np.ndarray]


class Updater:
    """Does what Caffe's ``Solver::ApplyUpdate`` does, and owns the history.

    It knows parameters, hyper-parameters and kernels, and neither Caffe nor files: the hosts give
    it arrays, observers hear what happens to them.

    Args:
        parameters: all learnable parameters in Caffe's order, frozen ones included.
        h: the hyper-parameters.
        rule: turns a gradient into an update value.
        kernels: the vector operations to compute with.
        states: per parameter its state slots by name, for a host that keeps them elsewhere; fresh
            zeros if not given.
        observers: hear of every stage.
        treatments: per parameter what applies to it, where that is not ``rule`` and ``h`` for all.
        clears_diffs: leave every diff zero, rather than the update value as Caffe does, so that a
            native update that follows does nothing.

    A program that clears all diffs before anybody looks at them may set ``keeps_update`` to False:
    where that saves a walk over memory, anything at all is left in the diffs then.

    Attributes:
        clipping: what ``clip_gradients`` did in the last update, or None.

    Raises:
        UserError: a rule or a learning-rate policy refuses its hyper-parameters.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        h: HyperParameters,
        rule: UpdateRule,
        kernels: Kernels,
        states: Optional[Sequence[ParameterState]] = None,
        observers: Sequence[Observer] = (),
        treatments: Optional[Sequence[Treatment]] = None,
        clears_diffs: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.kernels = kernels
        self.treatments = list(treatments or [Treatment(rule, h)] * len(self.parameters))
        self.states = list(states) if states is not None else self._fresh_states()
        self.observers: List[Observer] = list(observers)
        self.clears_diffs = clears_diffs
        self.keeps_update = True
        self.clipping: Optional[Clipping] = None
        self._rule = rule
        self._adopt(h)

    def _adopt(self, h: HyperParameters) -> None:
        check(h, self._rule)
        for treatment in set(self.treatments):
            check(treatment.h, treatment.rule)
        self.h = h
        self.schedule = Schedule(h)
        schedules = {schedule_of(h): self.schedule}
        for treatment in self.treatments:
            schedules.setdefault(schedule_of(treatment.h), Schedule(treatment.h))
        self._schedules = list(schedules.values())
        self._fused: List[Tuple[FusedUpdate, List[_Turn]]] = []
        self._fused_for: List[_Turn] = []
        self._not_fused: List[_Turn] = []
        self._ever_frozen = any(treatment.ever_frozen for treatment in self.treatments)
        self._turns = [
            _Turn(
                parameter,
                treatment,
                schedules[schedule_of(treatment.h)],
                ParameterStep(
                    name=parameter.name,
                    gradient=parameter.diff,
                    data=parameter.data,
                    state=state,
                    rate=F(0),
                    decay=gradient.local_decay(parameter, treatment.h),
                    iteration=0,
                    h=treatment.h,
                    kernels=self.kernels,
                ),
                lr_mult=F(parameter.lr_mult),
                trusted=type(treatment.rule) in RULES.values(),
            )
            for parameter, treatment, state in zip(self.parameters, self.treatments, self.states)
        ]

    def change(self, iteration: int, **hyperparameters: Any) -> None:
        """Change hyper-parameters from this iteration on.

        A parameter with a value of its own, other than the common one, keeps it.

        Raises:
            UserError: a rule or a policy refuses them; nothing is changed.
            ValueError: a value that is never allowed; nothing is changed.
        """
        h, treatments, step = self.h, self.treatments, self.current_step
        self.treatments = [
            replace(treatment, h=replace(treatment.h, **_common(hyperparameters, treatment.h, h)))
            for treatment in treatments
        ]
        try:
            self._adopt(replace(h, **hyperparameters))
        except (UserError, ValueError):
            self.treatments = treatments
            self._adopt(h)
            raise
        finally:
            self.resume(iteration, step)

    def _fresh_states(self) -> List[ParameterState]:
        return [
            {slot: np.zeros(parameter.count, F) for slot in treatment.rule.slots}
            for parameter, treatment in zip(self.parameters, self.treatments)
        ]

    @property
    def current_step(self) -> int:
        """The step of ``lr_policy`` step and multistep, part of the solver's state."""
        return self.schedule.current_step

    def resume(self, iteration: int, current_step: int) -> None:
        """Go on from a solver's state; its history is in ``states``."""
        for schedule in self._schedules:
            schedule.catch_up(iteration)
        self.schedule.current_step = current_step

    def compute(self, iteration: int) -> List[np.ndarray]:
        """Return what ``step`` would subtract from each parameter's data, and change nothing."""
        rehearsal = Updater(
            [replace(p, data=p.data.copy(), diff=p.diff.copy()) for p in self.parameters],
            self.h,
            self._rule,
            self.kernels,
            states=[{slot: a.copy() for slot, a in state.items()} for state in self.states],
            treatments=self.treatments,
        )
        rehearsal.resume(iteration, self.current_step)
        rehearsal.step(iteration)
        return [parameter.diff for parameter in rehearsal.parameters]

    def step(self, iteration: int) -> np.float32:
        """Turn the gradients in ``diff`` into new weights in ``data``; return the rate used.

        Raises:
            UserError: a user's own rule returned something that is no update value.
        """
        with np.errstate(all="ignore"):  # overflow is as silent as in C++
            return self._step(iteration)

    def _step(self, iteration: int) -> np.float32:
        rates = {schedule: schedule.rate(iteration) for schedule in self._schedules}
        rate = rates[self.schedule]
        watching = _Watching(self.observers, iteration, rate)
        self.clipping = None
        if watching.begin(self.parameters):
            self._update_all(rates, iteration, watching)
        elif self.clears_diffs:
            for parameter in self.parameters:
                self.kernels.set(ZERO, parameter.diff)
        watching.end()
        return rate

    def _update_all(
        self, rates: Dict[Schedule, np.float32], iteration: int, watching: _Watching
    ) -> None:
        for parameter in self.parameters:
            watching.tell(parameter, Stage.GRADIENT, parameter.diff)
        self.clipping = gradient.clipping(self.parameters, self.h, self.kernels)
        active = self._active(iteration)
        left = active if watching.seeing else self._update_fused(active, rates, iteration, watching)
        for turn in left:
            self._update(turn, rates, iteration, watching)
        if watching.measuring:
            for turn in active:
                watching.measure(turn.parameter, turn.figures)

    def _active(self, iteration: int) -> List[_Turn]:
        """Return the parameters that are not frozen; the others' diffs become zero."""
        if not self._ever_frozen:
            return self._turns
        active = []
        for turn in self._turns:
            if turn.treatment.frozen(iteration):
                self.kernels.set(ZERO, turn.parameter.diff)
            else:
                active.append(turn)
        return active

    def _update_fused(
        self,
        active: List[_Turn],
        rates: Dict[Schedule, np.float32],
        iteration: int,
        watching: _Watching,
    ) -> List[_Turn]:
        """Update the parameters for which there is a fused update; return the others."""
        if active != self._fused_for:
            self._fused_for = active
            self._fused, self._not_fused = _fuse(active, self.kernels)
        clip = self.clipping.scale_factor if self.clipping else ONE
        normalization = ONE / F(self.h.iter_size)
        leaves = Leaves.UPDATE if self.keeps_update else Leaves.ANYTHING
        leaves = Leaves.ZEROS if self.clears_diffs else leaves
        for fused, turns in self._fused:
            raw = self._clip_values(turns, rates[self.schedule], watching.measuring)
            local = [rates[turn.schedule] * turn.lr_mult for turn in turns]
            fused.run(local, iteration, clip, normalization, leaves, watching.measuring)
            if watching.measuring:
                for turn, figures, gradient_figures in zip(turns, fused.figures(), raw):
                    turn.figures = {**figures, **gradient_figures}
        return self._not_fused

    def _clip_values(
        self, turns: List[_Turn], rate: np.float32, measuring: bool
    ) -> List[Dict[str, Statistics]]:
        """Clip by value, which no pass does; return the figures of the gradients before that."""
        if not gradient.clips_values(self.h):
            return [{}] * len(turns)
        raw: List[Dict[str, Statistics]] = []
        for turn in turns:
            diff = turn.parameter.diff
            raw.append({"gradient": self.kernels.statistics(diff)} if measuring else {})
            gradient.clip_values(turn.parameter, self.h, rate)
        return raw

    def _update(
        self, turn: _Turn, rates: Dict[Schedule, np.float32], iteration: int, watching: _Watching
    ) -> None:
        """Take one parameter from its gradient to its new weights."""
        parameter, rule, k, tell = turn.parameter, turn.treatment.rule, self.kernels, watching.tell
        measured = _Measured(watching.measuring, k)
        measured.take("gradient", parameter.diff)
        if self.clipping:
            k.scal(self.clipping.scale_factor, parameter.diff)
        gradient.clip_values(parameter, self.h, rates[self.schedule])
        tell(parameter, Stage.CLIPPED, parameter.diff)
        gradient.normalize(parameter, self.h, k)
        tell(parameter, Stage.NORMALIZED, parameter.diff)
        if not rule.decoupled_decay:
            gradient.regularize(parameter, turn.treatment.h, turn.step.decay, k)
        tell(parameter, Stage.REGULARIZED, parameter.diff)
        measured.take("regularized", parameter.diff)
        step = turn.step
        step.gradient, step.data = parameter.diff, parameter.data
        step.rate, step.iteration = rates[turn.schedule] * turn.lr_mult, iteration
        value = rule.update(step) if turn.trusted else _call(rule, step)
        tell(parameter, Stage.UPDATE, value)
        for slot, array in step.state.items():
            measured.take(slot, array)
        measured.take("update", value)
        k.axpy(MINUS_ONE, value, parameter.data)
        tell(parameter, Stage.DATA, parameter.data)
        measured.take("data", parameter.data)
        turn.figures = measured.figures
        if self.clears_diffs:
            k.set(ZERO, parameter.diff)
        elif value is not parameter.diff:
            k.copy(value, parameter.diff)


class _Measured:
    """The figures of one parameter, taken as its update goes along, if anybody wants them."""

    def __init__(self, wanted: bool, kernels: Kernels) -> None:
        self.figures: Dict[str, Statistics] = {}
        self._wanted, self._kernels = wanted, kernels

    def take(self, name: str, array: np.ndarray) -> None:
        if self._wanted:
            self.figures[name] = self._kernels.statistics(array)


class _Watching:
    """The observers at one iteration."""

    def __init__(self, observers: Sequence[Observer], iteration: int, rate: np.float32) -> None:
        self._observers, self._iteration, self._rate = observers, iteration, rate
        self._seeing = [observer for observer in observers if observer.due(iteration)]
        self._measuring = [observer for observer in observers if observer.figures_due(iteration)]
        self._refused = False
        self.seeing, self.measuring = bool(self._seeing), bool(self._measuring)

    def begin(self, parameters: Sequence[Parameter]) -> bool:
        willing = [o.begin(self._iteration, self._rate, parameters) for o in self._observers]
        self._refused = not all(willing)
        return not self._refused

    def tell(self, parameter: Parameter, stage: Stage, array: np.ndarray) -> None:
        for observer in self._seeing:
            observer.observe(self._iteration, self._rate, parameter, stage, array)

    def measure(self, parameter: Parameter, figures: Dict[str, Statistics]) -> None:
        for observer in self._measuring:
            observer.measure(self._iteration, self._rate, parameter, figures)

    def end(self) -> None:
        for observer in self._observers:
            if self._refused or observer in self._seeing or observer in self._measuring:
                observer.end(self._iteration, self._rate)


@dataclass(eq=False)
class _Turn:
    """One parameter, and what its rule is told, made once and brought up to date."""

    parameter: Parameter
    treatment: Treatment
    schedule: Schedule
    step: ParameterStep
    lr_mult: np.float32
    trusted: bool  # a rule of this package: what it returns is used without a look
    figures: Dict[str, Statistics] = field(default_factory=dict)  # of its last update, if wanted


def _fuse(
    turns: List[_Turn], kernels: Kernels
) -> Tuple[List[Tuple[FusedUpdate, List[_Turn]]], List[_Turn]]:
    """Return the fused updates that there are, with the parameters of each, and the others."""
    by_rule: Dict[str, List[_Turn]] = {}
    for turn in turns:
        by_rule.setdefault(turn.treatment.rule.name if turn.trusted else "", []).append(turn)
    fused, others = [], by_rule.pop("", [])
    for name, alike in by_rule.items():
        rule = alike[0].treatment.rule
        tasks = [
            Task(t.parameter, t.step.state, t.treatment.h, t.step.decay, rule.decoupled_decay)
            for t in alike
        ]
        update = kernels.fuse(name, rule.slots, tasks)
        if update:
            fused.append((update, alike))
        else:
            others.extend(alike)
    return fused, others


def check(h: HyperParameters, rule: UpdateRule) -> None:
    """Check that a rule and a learning-rate policy accept the hyper-parameters.

    Raises:
        UserError: in the words ``field: found what, allowed what``.
    """
    Schedule(h)
    try:
        refusal = rule.check(h)
    except Exception as error:
        raise UserError(f"{_name(rule)}: check() raised {type(error).__name__}: {error}") from error
    if refusal:
        raise UserError(refusal)


def _common(
    changes: Dict[str, Any], own: HyperParameters, common: HyperParameters
) -> Dict[str, Any]:
    """Return the changes to what a parameter has in common with the others."""
    same = [name for name in changes if getattr(own, name) == getattr(common, name)]
    return {name: changes[name] for name in same}


def _call(rule: UpdateRule, step: ParameterStep) -> np.ndarray:
    """Call a rule of the user's, and look at what it returns and at what it did to its state.

    The state must stay in the arrays that the rule was given: they are the snapshot's.

    Raises:
        UserError: naming rule, parameter and iteration.
    """
    slots = dict(step.state)
    try:
        value = rule.update(step)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_where(rule, step)}: {type(error).__name__}: {error}") from error
    for slot, array in step.state.items():
        if slot not in slots:
            raise UserError(f"{_where(rule, step)}: state: '{slot}' is not among its slots")
        if array is not slots[slot]:
            _check_array(array, f"{_where(rule, step)}: state['{slot}'] became", step)
            slots[slot][...] = array
    step.state.update(slots)
    return _checked_value(value, rule, step)


def _checked_value(value: object, rule: UpdateRule, step: ParameterStep) -> np.ndarray:
    returned = f"{_where(rule, step)}: update() returned"
    array = _check_array(value, returned, step)
    finite = np.isfinite(array)
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        raise UserError(
            f"{returned} {int((~finite).sum())} values that are not finite, the first at index "
            f"{index}: {array[index]} from gradient {step.gradient[index]}"
        )
    return np.ascontiguousarray(array)  # the kernels walk over memory, not over strides


def _check_array(value: object, what: str, step: ParameterStep) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise UserError(f"{what} {type(value).__name__}, an array of float32 is wanted")
    if value.dtype != F:
        raise UserError(f"{what} an array of {value.dtype}, float32 is wanted")
    if value.shape != step.gradient.shape:
        raise UserError(f"{what} shape {value.shape}, {step.gradient.shape} is wanted")
    return value


def _where(rule: UpdateRule, step: ParameterStep) -> str:
    return f"rule {_name(rule)}, parameter {step.name}, iteration {step.iteration}"


def _name(rule: UpdateRule) -> str:
    own = type(rule) not in RULES.values()
    return f"{type(rule).__module__}:{type(rule).__qualname__}" if own else rule.name
