"""What the models are held against: the watched iterations, as long vectors in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Collection, List, Sequence

import numpy as np

from caffe_pysgd.proof.diagnose.lockstep import Trail
from caffe_pysgd.stock.learnable import LearnableParameter

_SAMPLE = 150
"""Values of each parameter that a sample holds at least, if there are as many."""


@dataclass(frozen=True)
class Moment:
    """One iteration: weights and gradients before the update, and the weights after it.

    Attributes:
        squares, products, weight_squares, signed, nonzero: per parameter, over all of its values
            and not the sample alone: the sums of g², g w, w², g sign(w) and sign(w)².
    """

    weights: np.ndarray
    gradients: np.ndarray
    after: np.ndarray
    squares: np.ndarray
    products: np.ndarray
    weight_squares: np.ndarray
    signed: np.ndarray
    nonzero: np.ndarray


class Evidence:
    """All parameters of all iterations, one behind the other, or a sample of each.

    Args:
        parameters: the learnable parameters.
        trail: the iterations.
        skipped: parameters that are not to be compared.
        sampled: whether a sample will do.

    Attributes:
        owner: for each value the number of its parameter.
        place: for each value where in its parameter it is; equal numbers are equal places.
        places: how many different places there are.
        compared: for each value whether it is to be compared.
        slices: per parameter, where its values are.
    """

    def __init__(
        self,
        parameters: Sequence[LearnableParameter],
        trail: Trail,
        skipped: Collection[str] = (),
        sampled: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        counts = [values.size for values in trail[0].weights]
        chosen = _sample(counts) if sampled else [np.arange(count) for count in counts]
        sizes = [indices.size for indices in chosen]
        ends = np.cumsum(sizes)
        self.slices = [slice(int(e) - s, int(e)) for e, s in zip(ends, sizes)]
        self.owner = np.repeat(np.arange(len(sizes)), sizes)
        places, self.place = np.unique(np.concatenate(chosen), return_inverse=True)
        self.places = int(places.size)
        self.skipped = [p.name in skipped or p.statistic for p in parameters]
        self.compared = ~np.array(self.skipped)[self.owner]
        self.lr_mult = np.array([p.lr_mult for p in parameters])
        self.decay_mult = np.array([p.decay_mult for p in parameters])
        self.is_bias = np.array([_is_bias(p) for p in parameters])
        self.moments: List[Moment] = [
            _moment(one.weights, one.gradients, one.after, chosen) for one in trail
        ]


def _is_bias(parameter: LearnableParameter) -> bool:
    return parameter.index > 0 and len(parameter.shape) == 1


def _sample(counts: Sequence[int]) -> List[np.ndarray]:
    """Choose values: of each parameter some, and the same places in all that reach so far.

    A history that several parameters share mixes what is at the same place.
    """
    rng = np.random.RandomState(0)
    drawn = [
        np.arange(count) if count <= _SAMPLE else rng.randint(count, size=_SAMPLE)
        for count in counts
    ]
    places = np.unique(np.concatenate(drawn))
    return [places[places < count] for count in counts]


def _moment(
    weights: List[np.ndarray],
    gradients: List[np.ndarray],
    after: List[np.ndarray],
    chosen: List[np.ndarray],
) -> Moment:
    wide = [(g.astype(np.float64), w.astype(np.float64)) for g, w in zip(gradients, weights)]

    def sums(first: List[np.ndarray], second: List[np.ndarray]) -> np.ndarray:
        return np.array([np.dot(a, b) for a, b in zip(first, second)])

    g, w = [pair[0] for pair in wide], [pair[1] for pair in wide]
    signs = [np.sign(values) for values in w]
    return Moment(
        _gather(w, chosen), _gather(g, chosen), _gather(after, chosen),
        sums(g, g), sums(g, w), sums(w, w), sums(g, signs), sums(signs, signs),
    )  # fmt: skip


def _gather(arrays: List[np.ndarray], chosen: List[np.ndarray]) -> np.ndarray:
    parts = [values[indices] for values, indices in zip(arrays, chosen)]
    return np.concatenate(parts).astype(np.float64)
