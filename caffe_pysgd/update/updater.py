"""The update itself: rate, gradient stages, rule, apply."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.update import gradient
from caffe_pysgd.update.gradient import Clipping
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import (
    FusedKernels,
    FusedUpdate,
    Kernels,
    Leaves,
    Task,
    Untraceable,
)
from caffe_pysgd.update.observers import Observer, Stage
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules import RULES, ParameterStep, UpdateRule
from caffe_pysgd.update.rules.calling import call, name_of
from caffe_pysgd.update.schedule import Schedule, schedule_of
from caffe_pysgd.update.self_check import first_difference
from caffe_pysgd.update.statistics import Statistics
from caffe_pysgd.update.treatment import Treatment
from caffe_pysgd.update.watching import Measured, Watching

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

    def prepare(self) -> None:
        """Fuse what can be fused now, rather than at the first update."""
        with np.errstate(all="ignore"):
            self._fused, self._not_fused = _fuse(self._turns, self.kernels)
        self._fused_for = self._turns

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

    def local_rate(self, number: int) -> np.float32:
        """Return the rate of a parameter's last update, its lr_mult included."""
        return self._turns[number].step.rate

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
        watching = Watching(self.observers, iteration, rate)
        self.clipping = None
        if watching.begin(self.parameters):
            self._update_all(rates, iteration, watching)
        elif self.clears_diffs:
            for parameter in self.parameters:
                self.kernels.set(ZERO, parameter.diff)
        watching.end()
        return rate

    def _update_all(
        self, rates: Dict[Schedule, np.float32], iteration: int, watching: Watching
    ) -> None:
        for turn in self._turns:
            turn.step.rate = rates[turn.schedule] * turn.lr_mult
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
        watching: Watching,
    ) -> List[_Turn]:
        """Update the parameters for which there is a fused update; return the others."""
        if active != self._fused_for:
            self._fused_for = active
            self._fused, self._not_fused = _fuse(active, self.kernels)
        clip = self.clipping.scale_factor if self.clipping else ONE
        normalization = ONE / F(self.h.iter_size)
        leaves = Leaves.UPDATE if self.keeps_update else Leaves.ANYTHING
        leaves = Leaves.ZEROS if self.clears_diffs else leaves
        left = list(self._not_fused)
        for fused, turns in self._fused:
            raw = self._clip_values(turns, rates[self.schedule], watching.measuring)
            local = [turn.step.rate for turn in turns]
            try:
                fused.run(local, iteration, clip, normalization, leaves, watching.measuring)
            except Untraceable as reason:  # from this iteration on; nothing was updated yet
                self._forget_fused(turns, str(reason))
                left += turns
                continue
            if not turns[0].trusted:
                _refuse_unfit(fused, turns, iteration)
            if watching.measuring:
                for turn, figures, gradient_figures in zip(turns, fused.figures(), raw):
                    turn.figures = {**figures, **gradient_figures}
        return left

    def _forget_fused(self, turns: List[_Turn], reason: str) -> None:
        self.kernels.unfused[name_of(turns[0].treatment.rule)] = reason
        self._fused_for = []

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
        self, turn: _Turn, rates: Dict[Schedule, np.float32], iteration: int, watching: Watching
    ) -> None:
        """Take one parameter from its gradient to its new weights."""
        parameter, rule, k, tell = turn.parameter, turn.treatment.rule, self.kernels, watching.tell
        measured = Measured(watching.measuring, k)
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
        step.iteration = iteration
        value = rule.update(step) if turn.trusted else call(rule, step)
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
    by_kind: Dict[Tuple[str, str], List[_Turn]] = {}
    for turn in turns:
        kind = name_of(turn.treatment.rule), turn.treatment.h.regularization_type
        by_kind.setdefault(kind, []).append(turn)
    fused, others = [], []
    for (name, decay), alike in by_kind.items():
        rule = alike[0].treatment.rule
        tasks = [
            Task(t.parameter, t.step.state, t.treatment.h, t.step.decay, rule.decoupled_decay)
            for t in alike
        ]
        update = kernels.fuse(name, rule, tasks, checked=not alike[0].trusted)
        if update and isinstance(kernels, FusedKernels):
            found = first_difference(kernels, name, rule, tasks[0].h, decay)
            if found:
                kernels.unfused[name] = f"its pass fails the self-check: {found}"
                update = None
        if update:
            fused.append((update, alike))
        else:
            others.extend(alike)
    return fused, others


def _refuse_unfit(fused: FusedUpdate, turns: List[_Turn], iteration: int) -> None:
    """Refuse an update of a user's rule that is not finite, as ``call`` does.

    Raises:
        UserError: naming rule, parameter and iteration.
    """
    unfit = fused.unfit()
    if unfit is None:
        return
    number, count = unfit
    turn = turns[number]
    index = int(np.flatnonzero(~np.isfinite(turn.parameter.data))[0])
    raise UserError(
        f"rule {name_of(turn.treatment.rule)}, parameter {turn.parameter.name}, iteration "
        f"{iteration}: update() returned {count} values that are not finite, the first at index "
        f"{index}, where the weight is {turn.parameter.data[index]} now"
    )


def check(h: HyperParameters, rule: UpdateRule) -> None:
    """Check that a rule and a learning-rate policy accept the hyper-parameters.

    Raises:
        UserError: in the words ``field: found what, allowed what``.
    """
    Schedule(h)
    try:
        refusal = rule.check(h)
    except Exception as error:
        raise UserError(
            f"{name_of(rule)}: check() raised {type(error).__name__}: {error}"
        ) from error
    if refusal:
        raise UserError(refusal)


def _common(
    changes: Dict[str, Any], own: HyperParameters, common: HyperParameters
) -> Dict[str, Any]:
    """Return the changes to what a parameter has in common with the others."""
    same = [name for name in changes if getattr(own, name) == getattr(common, name)]
    return {name: changes[name] for name in same}
