"""A hand-written update as people write it, with a switch for everything that is easily got wrong.

With all switches at their first values it is Caffe's update. It computes in double precision, and
carries along how large the terms were that it added up, because that bounds what a float32 loop may
round: what differs by more is another formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Hashable, Iterator, List, Tuple

import numpy as np

from caffe_pysgd.proof.diagnose.evidence import Evidence, Moment
from caffe_pysgd.update import HyperParameters
from caffe_pysgd.update.policies import caffe as lr_policies
from caffe_pysgd.update.policies.caffe import POLICIES


@dataclass(frozen=True)
class Loop:
    """The switches; each comment gives what it may be."""

    rule: str  # a solver type of Caffe's
    regularization: str  # L2 | L1
    rate: str = "policy"  # | next | previous | before | fixed
    lr_mult: bool = True
    decay_mult: str = "own"  # | ignored | biases too | not biases
    decay: str = "gradient"  # | subtracted | none | local rate | global rate | no rate (decoupled)
    clip: str = "first"  # | none | after iter_size | after decay | each
    divisions: int = 1  # by iter_size: 0 | 1 | 2
    momentum: str = "full"  # | none | damped
    history: str = "own"  # | reset | shared | by shape | by index
    rate_place: str = "inside"  # | outside
    scaled_again: str = "no"  # | local rate | global rate
    correction: bool = True  # Adam's
    applied: str = "once"  # | twice | all twice
    sign: int = -1  # | 1


@dataclass
class Gradient:
    """A gradient, and the magnitude of the terms that it is the sum of."""

    values: np.ndarray
    size: np.ndarray

    def part(self, where: slice) -> Gradient:
        return Gradient(self.values[where], self.size[where])


State = List[np.ndarray]
SLOTS = {"SGD": 2, "Nesterov": 2, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 3}
"""Arrays that a rule keeps, the magnitude of its first moment among them."""


def predict(
    loop: Loop, h: HyperParameters, evidence: Evidence
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Yield, iteration by iteration, the new weights and the magnitude of the terms in the update.

    Each iteration starts from the weights that were watched, so an error does not add up.
    """
    histories = _Histories(loop, evidence)
    with np.errstate(all="ignore"):
        for iteration, moment in enumerate(evidence.moments):
            rate = rate_at(loop.rate, h, iteration)
            weights, size = moment.weights, np.zeros_like(moment.weights)
            histories.begin()
            for _ in range(2 if loop.applied == "all twice" else 1):
                update, terms, weights = _update(
                    loop, h, evidence, moment, weights, rate, iteration, histories
                )
                weights = weights + loop.sign * update
                size = size + terms
            yield weights, size


def rate_at(which: str, h: HyperParameters, iteration: int) -> float:
    """Return the global rate that a loop takes at an iteration."""
    if which == "fixed":
        return float(h.base_lr)
    shift = {"policy": 0, "next": 1, "previous": -1, "before": -1}[which]
    at = iteration + shift
    if at < 0 and (which == "previous" or h.lr_policy in ("fixed", "step", "multistep")):
        at = 0
    step = lr_policies.step_before(h, at + 1)
    return float(POLICIES[h.lr_policy](h, at, step))


def _update(
    loop: Loop,
    h: HyperParameters,
    evidence: Evidence,
    moment: Moment,
    weights: np.ndarray,
    rate: float,
    iteration: int,
    histories: _Histories,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the update value, the magnitude of its terms, and the weights it is added to."""
    owner = evidence.owner
    local = rate * (evidence.lr_mult if loop.lr_mult else np.ones_like(evidence.lr_mult))[owner]
    decay = local_decay(loop, h, evidence)
    gradient = _gradient(loop, h, moment, weights, decay, owner)
    one = np.ones_like(local)
    extras: Dict[str, Any] = {"no": one, "local rate": local, "global rate": rate}
    extra = extras[loop.scaled_again]
    inside, outside = (local, one) if loop.rate_place == "inside" else (one, local)
    inside = inside * extra  # in place, so before anything else
    update, terms = histories.advance(h, gradient, inside, iteration)
    update, terms = outside * update, outside * terms
    if loop.applied == "twice":
        update, terms = 2 * update, 2 * terms
    decoupled = {"local rate": local, "global rate": rate, "no rate": 1.0}.get(loop.decay)
    if decoupled is not None:
        weights = weights - decoupled * decay[owner] * _direction(loop, weights)
    return update, terms, weights


def local_decay(loop: Loop, h: HyperParameters, evidence: Evidence) -> np.ndarray:
    """Return the weight decay of each parameter."""
    own = evidence.decay_mult
    multiplier = {
        "own": own,
        "ignored": np.ones_like(own),
        "biases too": np.where(evidence.is_bias & (own == 0), 1.0, own),
        "not biases": np.where(evidence.is_bias, 0.0, own),
    }[loop.decay_mult]
    return float(h.weight_decay) * multiplier


def _direction(loop: Loop, weights: np.ndarray) -> np.ndarray:
    return weights if loop.regularization == "L2" else np.sign(weights)


def _gradient(
    loop: Loop,
    h: HyperParameters,
    moment: Moment,
    weights: np.ndarray,
    decay: np.ndarray,
    owner: np.ndarray,
) -> Gradient:
    """Return the gradient clipped, divided by iter_size and with the weight decay, as ordered."""
    divisor = 1.0 / h.iter_size**loop.divisions
    strength = {"gradient": 1.0, "subtracted": -1.0}.get(loop.decay, 0.0) * decay
    penalty = strength[owner] * _direction(loop, weights)
    factor = _clip_factor(loop, h, moment, divisor, strength)
    scaled = moment.gradients * divisor
    if loop.clip == "after decay":
        values = factor[owner] * (scaled + penalty)
        return Gradient(values, factor[owner] * (np.abs(scaled) + np.abs(penalty)))
    scaled = factor[owner] * scaled
    return Gradient(scaled + penalty, np.abs(scaled) + np.abs(penalty))


def _clip_factor(
    loop: Loop, h: HyperParameters, moment: Moment, divisor: float, strength: np.ndarray
) -> np.ndarray:
    """Return what clipping scales each parameter by."""
    squares = moment.squares
    limit = float(h.clip_gradients)
    if limit < 0 or loop.clip == "none":
        return np.ones_like(squares)
    if loop.clip == "after iter_size":
        squares = squares * divisor**2
    elif loop.clip == "after decay":
        l2 = loop.regularization == "L2"
        mixed = moment.products if l2 else moment.signed
        weights = moment.weight_squares if l2 else moment.nonzero
        squares = divisor**2 * squares + 2 * divisor * strength * mixed + strength**2 * weights
    norms = (
        np.sqrt(squares) if loop.clip == "each" else np.sqrt(np.full_like(squares, squares.sum()))
    )
    return np.where(norms > limit, limit / norms, 1.0)


class _Histories:
    """The history of all parameters, each its own or in one way or another shared."""

    def __init__(self, loop: Loop, evidence: Evidence) -> None:
        self._loop, self._evidence = loop, evidence
        self._slots = SLOTS[loop.rule]
        self._alone = self._zeros(evidence.owner.size)
        self._shared: Dict[Hashable, State] = {}

    def _zeros(self, size: int) -> State:
        return [np.zeros(size) for _ in range(self._slots)]

    def begin(self) -> None:
        """Begin an iteration."""
        if self._loop.history == "reset":
            self._alone = self._zeros(self._evidence.owner.size)

    def advance(
        self, h: HyperParameters, gradient: Gradient, rate: np.ndarray, iteration: int
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Return the update value of all parameters and its magnitude, and keep the history."""
        if self._loop.history in ("own", "reset"):
            return _rule(self._loop, h, gradient, rate, self._alone, iteration)
        update, size = np.zeros_like(rate), np.zeros_like(rate)
        for number, where in enumerate(self._evidence.slices):
            if self._evidence.skipped[number]:
                continue
            state = self._shared.setdefault(self._group(number), self._zeros(self._evidence.places))
            places = self._evidence.place[where]
            part = [array[places] for array in state]
            update[where], size[where] = _rule(
                self._loop, h, gradient.part(where), rate[where], part, iteration
            )
            for array, values in zip(state, part):
                array[places] = values
        return update, size

    def _group(self, number: int) -> Hashable:
        parameter = self._evidence.parameters[number]
        return {"shared": 0, "by shape": parameter.shape, "by index": parameter.index}[
            self._loop.history
        ]


def _rule(
    loop: Loop, h: HyperParameters, g: Gradient, r: np.ndarray, state: State, iteration: int
) -> Tuple[np.ndarray, np.ndarray]:
    """Return the update value and the magnitude of its terms; change the state in place."""
    m = 0.0 if loop.momentum == "none" else float(h.momentum)
    damping = 1 - m if loop.momentum == "damped" else 1.0
    delta = float(h.delta)
    if loop.rule in ("SGD", "Nesterov"):
        history, size = state
        history[...] = m * history + damping * r * g.values
        size[...] = m * size + damping * r * g.size
        if loop.rule == "SGD":
            return history.copy(), size.copy()
        return damping * r * g.values + m * history, damping * r * g.size + m * size
    if loop.rule in ("AdaGrad", "RMSProp"):
        (history,) = state
        kept = float(h.rms_decay) if loop.rule == "RMSProp" else 1.0
        taken = 1 - kept if loop.rule == "RMSProp" else 1.0
        history[...] = kept * history + taken * g.values**2
        scale = r / (np.sqrt(history) + delta)
        return scale * g.values, scale * g.size
    if loop.rule == "AdaDelta":
        history, updates = state
        history[...] = m * history + (1 - m) * g.values**2
        scale = np.sqrt((delta + updates) / (delta + history))
        updates[...] = m * updates + (1 - m) * (scale * g.values) ** 2
        return r * scale * g.values, r * scale * g.size
    mean, square, size = state
    m2, t = float(h.momentum2), iteration + 1
    mean[...] = m * mean + (1 - m) * g.values
    size[...] = m * size + (1 - m) * g.size
    square[...] = m2 * square + (1 - m2) * g.values**2
    corrected = np.sqrt(1 - m2**t) / (1 - m**t) if loop.correction and m < 1 else 1.0
    scale = r * corrected / (np.sqrt(square) + delta)
    return scale * mean, scale * size
