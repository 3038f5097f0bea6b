"""Watching Caffe's own loop from Python: the loss of each pass, and the scores of the test nets."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import Any, Iterator, List

import numpy as np

from caffe_pysgd.hosts.backend import outputs
from caffe_pysgd.hosts.losses import Losses, NetLoss, Scores
from caffe_pysgd.stock.protocols import Net


class CaffesLoop:
    """What observers are told of a pycaffe solver's ``Solver::Step``.

    Caffe calls back before each layer's backward and after each layer's forward, and that is where
    its blobs are looked at. What a person does with the nets outside of the loop is not counted.

    Args:
        solver: a ``TakenOverSolver``; the observers of its updater are told.
    """

    def __init__(self, solver: Any) -> None:
        self._observers = solver.updater.observers
        param = solver.run.solver
        self._losses = Losses(param.average_loss, param.iter_size)
        self._net_loss = NetLoss(solver.net, solver.updater.kernels)
        self._in_passes = self._in_tests = False
        self._solver = weakref.ref(solver)
        # Caffe keeps the callbacks for as long as its nets live.
        this = weakref.ref(self)
        solver.net.before_backward(lambda layer: _told(this, "_before_backward", layer))
        for number, net in enumerate(solver.test_nets):
            scores, last = Scores(param.test_iter[number]), len(net.layers) - 1
            self._watch_test(this, number, net, scores, last)

    @staticmethod
    def _watch_test(this: Any, number: int, net: Net, scores: Scores, last: int) -> None:
        def after_forward(layer: int) -> None:
            if layer == last:
                _told(this, "_tested_batch", number, scores)

        net.after_forward(after_forward)

    @contextmanager
    def stepping(self, iteration: int) -> Iterator[None]:
        """Watch Caffe's loop, from an iteration on."""
        self._losses.begin_step(iteration)
        self._in_tests = True
        try:
            yield
        finally:
            self._in_passes = self._in_tests = False

    def iteration_begins(self) -> None:
        """Called when tests, if any, are over and the passes begin."""
        self._in_passes, self._in_tests = True, False
        self._losses.begin_iteration()
        for observer in self._observers:
            observer.iteration_begins()

    def gradients_ready(self, iteration: int) -> None:
        """Called when all passes are over; report their loss."""
        self._in_passes = False
        loss, smoothed = self._losses.complete(iteration)
        for observer in self._observers:
            observer.loss(loss, smoothed)
        solver = self._solver()
        assert solver is not None  # it is its Step that calls
        solver.updater.smoothed_loss = smoothed

    def iteration_ends(self) -> None:
        """Called after the update; a test may follow."""
        self._in_tests = True

    def _before_backward(self, layer: int) -> None:
        if self._in_passes and layer == self._net_loss.last:
            self._net_loss.add_to(self._losses)

    def _tested_batch(self, number: int, scores: Scores) -> None:
        solver = self._solver()
        if not self._in_tests or solver is None:
            return
        found = outputs(solver.test_nets[number])
        means = scores.add(np.array([value for _, value, _ in found], np.float32))
        if means is not None:
            rows: List[Any] = [
                (i, name, m) for i, ((name, _, _), m) in enumerate(zip(found, means))
            ]
            for observer in self._observers:
                observer.tested(solver.iter, number, rows)


def _told(this: Any, method: str, *arguments: Any) -> None:
    loop = this()
    if loop is not None:
        getattr(loop, method)(*arguments)
