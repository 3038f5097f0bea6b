"""The update itself: rates, stages of all parameters, observers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, List, Optional, Sequence

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import UserError
from caffe_pysgd.update.fused import Leaves
from caffe_pysgd.update.fusing import Fusing
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.learning_rates import Rates
from caffe_pysgd.update.observers import Observer
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.policies.plateau import UNSEEN, PlateauState, check_own
from caffe_pysgd.update.rules import UpdateRule
from caffe_pysgd.update.rules.checked import check
from caffe_pysgd.update.stages import Clipping, Stage, find_clipping, stages
from caffe_pysgd.update.watching import Watching

F = np.float32

ParameterState = Dict[str, Floats]


class Updater:
    """Does what Caffe's ``Solver::ApplyUpdate`` does, and owns the history.

    It knows parameters, hyper-parameters and kernels, and neither Caffe nor files: the hosts give
    it arrays, observers hear what happens to them.

    Args:
        parameters: all learnable parameters in Caffe's order, frozen ones included.
        h: the hyper-parameters, for parameters that have none of their own.
        rule: turns a gradient into an update value, for parameters that have none of their own.
        kernels: the vector operations to compute with.
        states: per parameter its state slots by name, for a host that keeps them elsewhere; fresh
            zeros if not given.
        observers: hear of every stage.
        clears_diffs: leave every diff zero, rather than the update value as Caffe does, so that a
            native update that follows does nothing.

    A program that clears all diffs before anybody looks at them may set ``keeps_update`` to False:
    where that saves a walk over memory, anything at all is left in the diffs then.

    Attributes:
        smoothed_loss: the mean of the last losses, for ``lr_policy`` plateau; the host sets it
            before each update.
        clipping: what ``clip_gradients`` did in the last update, or None.
        rates: of all parameters.

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
        clears_diffs: bool = False,
    ) -> None:
        self.parameters = [replace(p) for p in parameters]  # with the same arrays
        self.kernels = kernels
        self.observers: List[Observer] = list(observers)
        self.clears_diffs, self.keeps_update = clears_diffs, True
        self.clipping: Optional[Clipping] = None
        self.smoothed_loss = F(np.inf)
        self._rule = rule
        for number, p in enumerate(self.parameters):
            p.rule, p.kernels = rule if p.rule is None else p.rule, kernels
            p.h = h if p.h is None else p.h
            fresh = {slot: np.zeros(p.count, F) for slot in p.rule.slots}
            p.state = fresh if states is None else states[number]
        self._adopt(h)

    def _adopt(self, h: HyperParameters) -> None:
        check(h, self._rule)
        for own, rule in {(p.h, p.rule) for p in self.parameters}:
            check(own, rule)
            check_own(own, h)
        self.h, self.rates = h, Rates(self.parameters, h)
        for p in self.parameters:
            p.decay = p.h.weight_decay * F(p.decay_mult)
        self._ever_frozen = any(p.ever_frozen for p in self.parameters)
        self._fusing = Fusing(self.kernels)

    def prepare(self) -> None:
        """Fuse what can be fused now, rather than at the first update."""
        with np.errstate(all="ignore"):
            self._fusing.prepare(self.parameters)

    def change(self, iteration: int, **hyperparameters: Any) -> None:
        """Change hyper-parameters from this iteration on.

        A parameter with a value of its own, other than the common one, keeps it.

        Raises:
            UserError: a rule or a policy refuses them; nothing is changed.
        """
        h, before = self.h, [p.h for p in self.parameters]
        step, seen = self.current_step, self.plateau
        new = [own.following(h, hyperparameters) for own in before]
        try:
            self._set(new)
            self._adopt(replace(h, **hyperparameters))
        except UserError:
            self._set(before)
            self._adopt(h)
            raise
        finally:
            self.resume(iteration, step, seen)

    def _set(self, each: Sequence[HyperParameters]) -> None:
        for p, h in zip(self.parameters, each):
            p.h = h

    @property
    def states(self) -> List[ParameterState]:
        """Per parameter its state slots by name."""
        return [p.state for p in self.parameters]

    @property
    def current_step(self) -> int:
        """The step of ``lr_policy`` step, multistep and plateau, part of the solver's state."""
        return self.rates.schedule.current_step

    @property
    def plateau(self) -> PlateauState:
        """What ``lr_policy`` plateau has seen of the loss, part of the solver's state."""
        return self.rates.schedule.plateau

    def resume(self, iteration: int, current_step: int, plateau: PlateauState = UNSEEN) -> None:
        """Go on from a solver's state; its history is in ``states``."""
        self.rates.resume(iteration, current_step, plateau)

    def compute(self, iteration: int) -> List[Floats]:
        """Return what ``step`` would subtract from each parameter's data, and change nothing."""
        copies = [replace(p, data=p.data.copy(), diff=p.diff.copy()) for p in self.parameters]
        states = [{slot: a.copy() for slot, a in state.items()} for state in self.states]
        rehearsal = Updater(copies, self.h, self._rule, self.kernels, states)
        rehearsal.smoothed_loss = self.smoothed_loss
        rehearsal.resume(iteration, self.current_step, self.plateau)
        rehearsal.step(iteration)
        return [p.diff for p in copies]

    def step(self, iteration: int) -> np.float32:
        """Turn the gradients in ``diff`` into new weights in ``data``; return the rate used.

        Raises:
            UserError: a user's own rule returned something that is no update value.
        """
        with np.errstate(all="ignore"):  # overflow is as silent as in C++
            rate = self.rates.bring_up_to_date(iteration, self.smoothed_loss)
            watching = Watching(self.observers, iteration, rate, self.kernels)
            self.clipping = None
            if watching.begin(self.parameters):
                self._apply_update(iteration, rate, watching)
            elif self.clears_diffs:
                self._clear(self.parameters)
            watching.end()
            return rate

    def _apply_update(self, iteration: int, rate: np.float32, watching: Watching) -> None:
        self.clipping = find_clipping(self.parameters, self.h, self.kernels)
        active = left = self._active(iteration)
        if not watching.seeing:  # nobody wants arrays
            left, watching.figures = self._fusing.update(
                active, self.rates, self.h, self.clipping, self._leaves(), watching.measuring
            )
        for p in left:
            watching.measure(p, Stage.GRADIENT, p.diff)
            for stage, array in stages(p, self.h, rate, self.clipping, self.kernels):
                watching.take(p, stage, array)
            if self.clears_diffs:
                self._clear([p])
        watching.measured(active)

    def _active(self, iteration: int) -> List[Parameter]:
        """Return the parameters that are not frozen; the others' diffs become zero."""
        if not self._ever_frozen:
            return self.parameters
        self._clear(p for p in self.parameters if p.frozen(iteration))
        return [p for p in self.parameters if not p.frozen(iteration)]

    def _clear(self, parameters: Iterable[Parameter]) -> None:
        for p in parameters:
            self.kernels.set(F(0), p.diff)

    def _leaves(self) -> Leaves:
        if self.clears_diffs:
            return Leaves.ZEROS
        return Leaves.UPDATE if self.keeps_update else Leaves.ANYTHING
