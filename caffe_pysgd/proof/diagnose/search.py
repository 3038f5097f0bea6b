"""Holding the models against the evidence: which faults explain what was seen?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.proof.diagnose.evidence import Evidence
from caffe_pysgd.proof.diagnose.faults import UPDATE_FAULTS, Fault, Switches
from caffe_pysgd.proof.diagnose.hand_written import Loop, predict
from caffe_pysgd.proof.diagnose.hyperparameter_guesses import other_values
from caffe_pysgd.update import HyperParameters

_HALF_ULP = 2.0**-24
_ROUNDINGS = 16
"""How many roundings a hand-written loop may do on the way, each by at most half an ulp."""
_CLIP_ROUNDINGS = 48
"""The same where it clips: a norm over all gradients is a long sum."""
_STEPS = 4
"""In how many steps it may go from the old weights to the new ones."""
_BEAM = 12

Faults = Tuple[Fault, ...]
Prediction = Tuple[np.ndarray, np.ndarray]


class _Nearness(NamedTuple):
    """How near a model comes; the less the nearer.

    Attributes:
        failed: minus the number of iterations that agree; the next one does not.
        relative: how far the model is off there, relative to the updates of that iteration.
    """

    failed: int
    relative: float


@dataclass(frozen=True)
class Residual:
    """How far a model's predictions are from what was seen.

    Attributes:
        roundings: the greatest distance, as a multiple of what rounding may do; up to 1 it is
            nothing but rounding.
        ulp: the greatest distance, in units in the last place of the largest of the weight before,
            the weight after and the terms of the update.
        relative: the L2 norm of the distance, relative to that of the updates.
    """

    roundings: float
    ulp: float
    relative: float

    @property
    def agrees(self) -> bool:
        """Whether there is nothing but rounding."""
        return self.roundings <= 1


@dataclass(frozen=True)
class Explanation:
    """Faults that together explain what was seen, and the loop and the settings that have them."""

    faults: Faults
    loop: Loop
    h: HyperParameters


class Search:
    """Looks for the fewest faults that explain the evidence.

    Args:
        caffes: Caffe's own update.
        h: the solver's hyper-parameters.
        sample: what to look at for each of very many models.
        whole: what an explanation must hold for in the end.
        most: how many faults to put together at most.
    """

    def __init__(
        self, caffes: Loop, h: HyperParameters, sample: Evidence, whole: Evidence, most: int = 3
    ) -> None:
        self._caffes, self._h = caffes, h
        self.sample, self._whole = sample, whole
        self._most = most
        self._nearest: Dict[Faults, _Nearness] = {}
        self._residuals: Dict[Tuple[Loop, HyperParameters], Residual] = {}
        self.possible = [f for f in UPDATE_FAULTS if f.possible(caffes.rule, caffes.regularization)]

    @property
    def caffes(self) -> Explanation:
        """The explanation that there is no fault."""
        return Explanation((), self._caffes, self._h)

    def residual(self, one: Explanation) -> Residual:
        """Return how far a model is from all of the evidence."""
        model = one.loop, one.h
        if model not in self._residuals:
            self._residuals[model] = _residual(*model, self._whole)
        return self._residuals[model]

    def explanations(self) -> List[Explanation]:
        """Return all explanations with the fewest faults; none if there is no explanation."""
        for number in range(1, self._most + 1):
            found = self._known(number)
            if number == 1 or (number == 2 and not found):
                found += self._with_other_values(number - 1)
            if found:
                return found
        return []

    def in_place_of(self, found: List[Explanation]) -> List[Explanation]:
        """Return pairs of faults that explain as much as a single other value of a setting."""
        alone = all(len(one.faults) == 1 and not one.faults[0].variants for one in found)
        return self._known(2) if alone else []

    def _known(self, number: int) -> List[Explanation]:
        found = [
            one
            for faults in self._candidates(number)
            for loop in self._variants(faults)
            for one in [Explanation(faults, loop, self._h)]
            if self._try(one)
        ]
        return _one_of_each(found)

    def _with_other_values(self, number: int) -> List[Explanation]:
        """Return explanations of which one fault is another value of a setting."""
        found: Dict[Tuple[str, Faults], Explanation] = {}
        for faults in combinations(self.possible, number):
            for loop in self._variants(faults):
                failed = -_first_look(loop, self._h, self.sample).failed
                if failed == len(self.sample.moments):
                    continue
                for fault, h in other_values(loop, self._h, self.sample, failed):
                    one = Explanation((fault, *faults), loop, h)
                    if (fault.key, faults) not in found and self._try(one):
                        found[fault.key, faults] = one
        return list(found.values())

    def without(self, one: Explanation, fault: Fault) -> Residual:
        """Return how far off an explanation is once one of its faults is taken out of it."""
        right = {name: vars(self._caffes)[name] for v in fault.variants for name in v}
        h = one.h if fault.variants else self._h  # one without switches is another value in h
        rest = tuple(other for other in one.faults if other is not fault)
        return self.residual(Explanation(rest, replace(one.loop, **right), h))

    def hints(self) -> List[str]:
        """Return, where nothing explains what was seen, what was seen of each parameter."""
        lines = ["For each parameter, the update as a multiple of Caffe's, iteration by iteration:"]
        ratios = _ratios(self._caffes, self._h, self._whole)
        for parameter, row in zip(self._whole.parameters, ratios):
            lines.append(f"  {parameter.name}: {', '.join(f'{ratio:.4g}' for ratio in row)}")
        nearest = self.nearest()
        if nearest:
            titles = "; ".join(fault.title for fault in nearest)
            failed, relative = self._nearest[nearest]
            lines.append(
                f"Nearest comes: {titles}; up to iteration {-failed}, where that would leave "
                f"{relative:.2g} of the update."
            )
        return lines

    def nearest(self) -> Optional[Faults]:
        """Return the faults that came nearest to an explanation."""
        return min(self._nearest, key=lambda f: self._nearest[f], default=None)

    def without_effect(self, one: Explanation) -> List[Fault]:
        """Return the faults that would make no difference if a loop had them, too."""
        loop, h = one.loop, one.h
        expected = list(predict(loop, h, self.sample))
        free = {name for name, value in vars(loop).items() if value == vars(self._caffes)[name]}
        return [
            fault
            for fault in self.possible
            if all(
                free.issuperset(variant) and self._same(expected, replace(loop, **variant), h)
                for variant in fault.variants
            )
        ]

    def _same(self, expected: List[Prediction], loop: Loop, h: HyperParameters) -> bool:
        """Return whether a model predicts what is expected, up to rounding."""
        allowed, kept = _allowance(h), self.sample.compared
        predictions = zip(self.sample.moments, expected, predict(loop, h, self.sample))
        for moment, (first, terms), (second, more) in predictions:
            bound = _bound(moment.weights, first, np.maximum(terms, more), allowed)
            if not (np.abs(first - second) <= bound)[kept].all():
                return False
        return True

    def _candidates(self, number: int) -> Iterator[Faults]:
        if number <= 2:
            return iter(combinations(self.possible, number))
        # All triples would be thousands: only those that continue what came near.
        near = sorted(self._nearest, key=lambda faults: self._nearest[faults])
        pairs = [faults for faults in near if len(faults) == 2][:_BEAM]
        triples = {
            tuple(fault for fault in self.possible if fault in (*pair, more))
            for pair in pairs
            for more in self.possible
            if more not in pair
        }
        return iter(sorted(triples, key=lambda faults: [f.key for f in faults]))

    def _variants(self, faults: Faults) -> Iterator[Loop]:
        for switches in _together(faults):
            yield replace(self._caffes, **switches)

    def _try(self, one: Explanation) -> bool:
        nearness = _first_look(one.loop, one.h, self.sample)
        self._nearest[one.faults] = min(nearness, self._nearest.get(one.faults, nearness))
        agrees = -nearness.failed == len(self.sample.moments)
        return agrees and self.residual(one).agrees


def _together(faults: Sequence[Fault]) -> Iterator[Switches]:
    """Yield the switches of several faults at once, unless two set the same one."""
    if not faults:
        yield {}
        return
    for rest in _together(faults[1:]):
        for variant in faults[0].variants:
            if not variant.keys() & rest.keys():
                yield {**variant, **rest}


def _one_of_each(found: List[Explanation]) -> List[Explanation]:
    """Keep one variant of each set of faults."""
    return list({one.faults: one for one in reversed(found)}.values())[::-1]


def _allowance(h: HyperParameters) -> int:
    return _CLIP_ROUNDINGS if h.clip_gradients >= 0 else _ROUNDINGS


def _bound(before: np.ndarray, after: np.ndarray, terms: np.ndarray, allowed: int) -> np.ndarray:
    size = _STEPS * np.maximum(np.abs(before), np.abs(after)) + allowed * terms
    bound: np.ndarray = _HALF_ULP * size + 2.0**-148  # and what is denormal
    return bound


def _error(predicted: np.ndarray, seen: np.ndarray) -> np.ndarray:
    error = np.abs(predicted - seen)
    error[~np.isfinite(error)] = np.inf
    return error


def _first_look(loop: Loop, h: HyperParameters, evidence: Evidence) -> _Nearness:
    """Hold a model against one iteration after the other, up to the first that does not agree."""
    allowed, kept = _allowance(h), evidence.compared
    for number, (moment, (after, terms)) in enumerate(
        zip(evidence.moments, predict(loop, h, evidence))
    ):
        error = _error(after, moment.after)[kept]
        if not (error <= _bound(moment.weights, moment.after, terms, allowed)[kept]).all():
            moved = np.linalg.norm((moment.after - moment.weights)[kept])
            apart = float(np.linalg.norm(error))
            return _Nearness(-number, apart / float(moved) if moved else apart)
    return _Nearness(-len(evidence.moments), 0.0)


def _residual(loop: Loop, h: HyperParameters, evidence: Evidence) -> Residual:
    allowed, kept = _allowance(h), evidence.compared
    roundings = ulp = apart = moved = 0.0
    for moment, (after, terms) in zip(evidence.moments, predict(loop, h, evidence)):
        error = _error(after, moment.after)[kept]
        bound = _bound(moment.weights, moment.after, terms, allowed)[kept]
        larger = np.maximum(np.maximum(np.abs(moment.weights), np.abs(moment.after)), terms)[kept]
        unit = np.spacing(larger.astype(np.float32)).astype(np.float64)
        with np.errstate(all="ignore"):
            roundings = max(roundings, float((error / bound).max(initial=0)))
            ulp = max(ulp, float((error / unit).max(initial=0)))
        apart += float(np.dot(error, error))
        moved += float(np.sum((moment.after - moment.weights)[kept] ** 2))
    relative = float(np.sqrt(apart / moved)) if moved else float("inf")
    return Residual(roundings, ulp, relative)


def _ratios(loop: Loop, h: HyperParameters, evidence: Evidence) -> List[List[float]]:
    """Return, by parameter and iteration, what best scales a model's update to that seen."""
    rows: List[List[float]] = [[] for _ in evidence.slices]
    for moment, (after, _) in zip(evidence.moments, predict(loop, h, evidence)):
        for row, where in zip(rows, evidence.slices):
            predicted = (after - moment.weights)[where]
            seen = (moment.after - moment.weights)[where]
            square = float(np.dot(predicted, predicted))
            row.append(float(np.dot(predicted, seen)) / square if square else float("nan"))
    return rows
