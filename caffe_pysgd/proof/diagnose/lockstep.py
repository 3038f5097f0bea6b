"""Loops on the same data from the same weights, and what each of their iterations did.

All pycaffe solvers of a process draw from one random generator, which the constructor seeds. So the
loops run one after the other, each on a solver of its own, and are compared afterwards.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, NamedTuple

import numpy as np

from caffe_pysgd.hosts.backend import learnable_blobs
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blob, Net, Solver

Arrays = List[np.ndarray]
Step = Callable[[Any, int], None]
Progress = Callable[[], None]


@dataclass
class Iteration:
    """What one iteration of a loop started from and came to; arrays by parameter, flat.

    Attributes:
        start: the weights before anything.
        weights: the weights at the first forward; ``start`` if there was none.
        gradients: the diffs after the last backward, before any update; empty if there was none.
        after: the weights at the end.
        left_over: for each backward the L2 norm of the diffs that it added to.
        batches: for each forward a fingerprint of what the data layers gave.
        used: the same for each backward: what it computed gradients of.
        activations: after the first forward, a fingerprint of every blob of the net.
    """

    start: Arrays
    weights: Arrays
    after: Arrays
    gradients: Arrays = field(default_factory=list)
    left_over: List[float] = field(default_factory=list)
    batches: List[str] = field(default_factory=list)
    used: List[str] = field(default_factory=list)
    activations: List[str] = field(default_factory=list)


Trail = List[Iteration]


class Layer(NamedTuple):
    """A layer of a net: its name, its type, and the numbers of the blobs that it writes."""

    name: str
    type: str
    tops: List[int]


class Lockstep:
    """Runs loops on solvers that are all alike.

    Args:
        run: what they train.
        iterations: how many iterations each loop does.
        progress: is called after each iteration.

    Attributes:
        layers: the train net's layers, once a loop ran.
    """

    def __init__(self, run: Run, iterations: int, progress: Progress = lambda: None) -> None:
        self.run = run
        self.iterations = iterations
        self.layers: List[Layer] = []
        self._progress = progress

    def native(self) -> Trail:
        """Return what Caffe's own solver does."""
        return self.follow(lambda solver, iteration: solver.step(1))

    def gradients_along(self, trail: Trail) -> Trail:
        """Return the gradients that there ought to be at the weights of another loop."""

        def compute(solver: Solver, iteration: int) -> None:
            for blob, values in zip(
                learnable_blobs(self.run, solver.net), trail[iteration].weights
            ):
                blob.data[...] = values.reshape(blob.data.shape)
            solver.net.clear_param_diffs()
            for _ in range(self.run.h.iter_size):
                solver.net._forward(0, len(solver.net.layers) - 1)
                solver.net._backward(len(solver.net.layers) - 1, 0)

        return Lockstep(self.run, len(trail), self._progress).follow(compute)

    def follow(self, step: Step) -> Trail:
        """Do a loop's iterations on a new solver; stop where its weights are not finite."""
        solver = self._new_solver()
        watch = _Watch(solver.net, learnable_blobs(self.run, solver.net))
        self.layers = _layers(solver.net)
        trail: Trail = []
        for number in range(self.iterations):
            watch.begin()
            step(solver, number)
            done = watch.end()
            self._progress()
            if not all(np.isfinite(values).all() for values in done.after):
                break  # with NaN, Caffe's max pooling writes outside of its memory
            trail.append(done)
        return trail

    def _new_solver(self) -> Solver:
        tests = {"test_interval": self.iterations + 1} if self.run.solver.test_interval else {}
        alone = self.run.with_solver(
            train_state=self.run.state, test_initialization=False, snapshot=0, display=0, **tests
        )
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
            solver: Solver = pycaffe.package().get_solver(str(alone.write_stock(Path(folder))))
            return solver


class _Watch:
    """Watches every forward and backward pass of a net, whoever calls them."""

    def __init__(self, net: Net, blobs: List[Blob]) -> None:
        self._net, self._blobs = net, blobs
        self._last = len(net.layers) - 1
        self._sources = [
            top
            for layer in range(len(net.layers))
            if not len(net._bottom_ids(layer))
            for top in net._top_ids(layer)
        ]
        net.before_forward(self._before_forward)
        net.after_forward(self._after_forward)
        net.before_backward(self._before_backward)
        net.after_backward(self._after_backward)

    def begin(self) -> None:
        now = self._copies("data")
        self._now = Iteration(start=now, weights=now, after=now)

    def end(self) -> Iteration:
        self._now.after = self._copies("data")
        return self._now

    def _before_forward(self, layer: int) -> None:
        if layer == 0 and not self._now.batches:
            weights = self._copies("data")
            if not same_bits(weights, self._now.start):
                self._now.weights = weights

    def _after_forward(self, layer: int) -> None:
        if layer != self._last:
            return
        blobs = self._net._blobs
        self._now.batches.append(" ".join(_fingerprint(blobs[top].data) for top in self._sources))
        if len(self._now.batches) == 1:
            self._now.activations = [_fingerprint(blob.data) for blob in blobs]

    def _before_backward(self, layer: int) -> None:
        if layer == self._last:
            self._now.left_over.append(norm(self._copies("diff")))
            self._now.used.append(self._now.batches[-1] if self._now.batches else "none")

    def _after_backward(self, layer: int) -> None:
        if layer == 0:
            self._now.gradients = self._copies("diff")

    def _copies(self, what: str) -> Arrays:
        return [np.array(getattr(blob, what)).reshape(-1) for blob in self._blobs]


def _layers(net: Net) -> List[Layer]:
    return [
        Layer(name, layer.type, list(net._top_ids(number)))
        for number, (name, layer) in enumerate(zip(net._layer_names, net.layers))
    ]


def norm(arrays: Arrays) -> float:
    """Return the L2 norm of all values together."""
    squares = [np.dot(values, values) for values in (a.astype(np.float64) for a in arrays)]
    return float(np.sqrt(sum(squares)))


def distance(one: Arrays, other: Arrays) -> float:
    """Return the L2 norm of the difference of all values together."""
    return norm([a.astype(np.float64) - b for a, b in zip(one, other)])


def same_bits(one: Arrays, other: Arrays) -> bool:
    """Return whether no bit differs."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other))


def _fingerprint(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8).hexdigest()
