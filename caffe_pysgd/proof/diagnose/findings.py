"""What is seen of a loop directly, before any model: its gradients, its data, what it updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence

import numpy as np

from caffe_pysgd.proof.diagnose import faults
from caffe_pysgd.proof.diagnose.faults import Fault
from caffe_pysgd.proof.diagnose.lockstep import (
    Arrays,
    Iteration,
    Layer,
    Trail,
    distance,
    norm,
    same_bits,
)
from caffe_pysgd.stock.learnable import LearnableParameter

_ROUNDING = 1e-5
"""Gradients that differ by less, relative to their norm, were only rounded otherwise."""


@dataclass(frozen=True)
class Finding:
    """A fault that was seen, and what was seen of it."""

    fault: Fault
    evidence: str


def findings(
    user: Trail, native: Trail, right: Trail, layers: Sequence[Layer], iter_size: int
) -> List[Finding]:
    """Return what is wrong with the gradients; where one thing follows from another, the other.

    Args:
        user: the hand-written loop.
        native: Caffe's own.
        right: the gradients that there ought to be at the user's weights.
        layers: those of the train net.
        iter_size: how many passes an iteration has.
    """
    if not any(one.gradients for one in user):
        calls = sum(len(one.batches) for one in user)
        return [Finding(faults.NO_BACKWARD, f"forward ran {calls} times, backward never")]
    found = [
        _weights(user, native),
        _passes(user, iter_size),
        _batches(user, native),
        _left_over(user),
        _cleared_between(user, iter_size),
    ]
    seen = [finding for finding in found if finding]
    if not seen:
        other = _gradients(user, right, layers)
        seen = [other] if other else []
    return seen


def _weights(user: Trail, native: Trail) -> Optional[Finding]:
    first = user[0].weights
    if not same_bits(first, native[0].weights):
        apart = distance(first, native[0].weights) / norm(native[0].weights)
        return Finding(
            faults.OTHER_WEIGHTS,
            f"at iteration 0 they are {apart:.2g} apart, relative to their norm, before any update",
        )
    for number, one in enumerate(user):
        if not same_bits(one.start, one.weights):
            apart = distance(one.start, one.weights) / norm(one.start)
            return Finding(
                faults.MOVED_WEIGHTS,
                f"at iteration {number} by {apart:.2g}, relative to their norm",
            )
    return None


def _batches(user: Trail, native: Trail) -> Optional[Finding]:
    """Each backward is to be of the batch that follows on that of the one before."""
    right = [batch for one in native for batch in one.used]
    calls = passes = 0
    for number, one in enumerate(user):
        calls += len(one.batches)
        for batch in one.used:
            if passes < len(right) and batch != right[passes]:
                seen = f"batch {right.index(batch)}" if batch in right else "another one"
                return Finding(
                    faults.OTHER_BATCH,
                    f"at iteration {number} backward was to be of batch {passes}, and was of {seen}"
                    f"; forward had run {calls} times",
                )
            passes += 1
    return None


def _passes(user: Trail, iter_size: int) -> Optional[Finding]:
    for number, one in enumerate(user):
        if len(one.used) != iter_size:
            return Finding(
                faults.OTHER_PASSES,
                f"at iteration {number} backward ran {len(one.used)} times; "
                f"iter_size is {iter_size}",
            )
    return None


def _left_over(user: Trail) -> Optional[Finding]:
    for number, one in enumerate(user):
        if one.left_over and one.left_over[0] > 0:
            return Finding(
                faults.NOT_CLEARED,
                f"at iteration {number} backward found diffs of L2 norm {one.left_over[0]:.3g}, "
                f"and left {norm(one.gradients):.3g}",
            )
    return None


def _cleared_between(user: Trail, iter_size: int) -> Optional[Finding]:
    for number, one in enumerate(user):
        later = one.left_over[1:iter_size]
        if len(one.left_over) == iter_size and any(left == 0 for left in later):
            return Finding(
                faults.CLEARED_BETWEEN,
                f"at iteration {number}, pass {1 + later.index(0) + 1} of {iter_size}, backward "
                "found diffs of zero",
            )
    return None


def _gradients(user: Trail, right: Trail, layers: Sequence[Layer]) -> Optional[Finding]:
    for number, (one, other) in enumerate(zip(user, right)):
        size = norm(other.gradients)
        apart = distance(one.gradients, other.gradients)
        if not one.gradients or apart <= _ROUNDING * size:
            continue
        how_far = f"at iteration {number} they are {apart / size:.2g} apart, relative to their norm"
        first = _first_that_differ(one, other, layers)
        if first:
            names = " or ".join(layer.name for layer in first)
            how_far += f"; the first layer that gives something else is {names}"
        random = any(layer.type == "Dropout" for layer in first)
        known = faults.RANDOM if random else faults.OTHER_GRADIENTS
        return Finding(known, how_far)
    return None


def _first_that_differ(one: Iteration, other: Iteration, layers: Sequence[Layer]) -> List[Layer]:
    """Return the layers that write the first blob that differs."""
    for blob, (found, expected) in enumerate(zip(one.activations, other.activations)):
        if found != expected:
            return [layer for layer in layers if blob in layer.tops]
    return []


def not_updated(parameters: Sequence[LearnableParameter], user: Trail, native: Trail) -> List[str]:
    """Return the parameters that never change, though the reference's do."""
    return [
        p.name
        for number, p in enumerate(parameters)
        if _still(user, number) and not _still(native, number)
    ]


def _still(trail: Trail, number: int) -> bool:
    """Return whether one parameter has the same bits at the end of every iteration."""

    def one(arrays: Arrays) -> Arrays:
        return [arrays[number]]

    return all(same_bits(one(moment.weights), one(moment.after)) for moment in trail)


def largest_update(trail: Trail) -> float:
    """Return the greatest change of a weight."""
    return max(
        float(np.abs(after - before).max(initial=0))
        for one in trail
        for before, after in zip(one.weights, one.after)
    )
