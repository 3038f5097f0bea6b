"""The update itself: rate, gradient stages, rule, apply."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from caffe_pysgd.update import gradient, lr_policies
from caffe_pysgd.update.gradient import Clipping
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.observers import Observer, Stage
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules import UpdateRule

F = np.float32
MINUS_ONE = F(-1)

ParameterState = Dict[str, np.ndarray]
Tell = Callable[[Parameter, Stage, np.ndarray], None]


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

    Attributes:
        current_step: the step of ``lr_policy`` step and multistep, part of the solver's state.
        clipping: what ``clip_gradients`` did in the last update, or None.

    Raises:
        ValueError: the learning-rate policy refuses its settings.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        h: HyperParameters,
        rule: UpdateRule,
        kernels: Kernels,
        states: Optional[Sequence[ParameterState]] = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        lr_policies.check(h)
        self.parameters = list(parameters)
        self.h = h
        self.rule = rule
        self.kernels = kernels
        self.states = list(states) if states is not None else self._fresh_states()
        self.observers: List[Observer] = list(observers)
        self.current_step = 0
        self.clipping: Optional[Clipping] = None

    def _fresh_states(self) -> List[ParameterState]:
        return [
            {slot: np.zeros(parameter.count, F) for slot in self.rule.slots}
            for parameter in self.parameters
        ]

    def step(self, iteration: int) -> np.float32:
        """Turn the gradients in ``diff`` into new weights in ``data``; return the rate used."""
        rate = self.learning_rate(iteration)
        listeners = [observer for observer in self.observers if observer.due(iteration)]
        tell = _teller(listeners, iteration, rate)
        self._compute_update(rate, tell)
        self._apply(tell)
        for observer in listeners:
            observer.end(iteration, rate)
        return rate

    def learning_rate(self, iteration: int) -> np.float32:
        """Return the global rate at this iteration; like Caffe's, it advances ``multistep``."""
        self.current_step = lr_policies.current_step(self.h, iteration, self.current_step)
        return lr_policies.POLICIES[self.h.lr_policy](self.h, iteration, self.current_step)

    def _compute_update(self, rate: np.float32, tell: Tell) -> None:
        h, k = self.h, self.kernels
        for parameter in self.parameters:
            tell(parameter, Stage.GRADIENT, parameter.diff)
        self.clipping = gradient.clip(self.parameters, h, k)
        for parameter in self.parameters:
            tell(parameter, Stage.CLIPPED, parameter.diff)
        for parameter, state in zip(self.parameters, self.states):
            gradient.normalize(parameter, h, k)
            tell(parameter, Stage.NORMALIZED, parameter.diff)
            gradient.regularize(parameter, h, k)
            tell(parameter, Stage.REGULARIZED, parameter.diff)
            local_rate = rate * F(parameter.lr_mult)
            self.rule.compute_update_value(parameter.diff, state, local_rate, k)
            tell(parameter, Stage.UPDATE, parameter.diff)

    def _apply(self, tell: Tell) -> None:
        for parameter in self.parameters:
            self.kernels.axpy(MINUS_ONE, parameter.diff, parameter.data)
            tell(parameter, Stage.DATA, parameter.data)


def _teller(listeners: Sequence[Observer], iteration: int, rate: np.float32) -> Tell:
    def tell(parameter: Parameter, stage: Stage, array: np.ndarray) -> None:
        for observer in listeners:
            observer.observe(iteration, rate, parameter, stage, array)

    return tell if listeners else _tell_nobody


def _tell_nobody(parameter: Parameter, stage: Stage, array: np.ndarray) -> None:
    pass
