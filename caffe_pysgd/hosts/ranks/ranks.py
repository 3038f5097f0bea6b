"""One rank of an in-net or a solver run: what it does before, between and after the passes."""

from __future__ import annotations

import signal
import zlib
from collections import Counter
from typing import Any, Iterable, List

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.ranks.exchange import Exchange
from caffe_pysgd.hosts.ranks.signals import SNAPSHOT, STOP, Signals
from caffe_pysgd.hosts.ranks.world import World
from caffe_pysgd.run.settings import RankSettings, UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.update import Updater


class Ranks:
    """What makes a solver one of several.

    Args:
        settings: how many there are, and how they hold together.

    Attributes:
        world: all of them.
        signals: what this one is asked for.
        agreed: what all of them are to do when the iteration ends.

    Raises:
        UserError: MPI did not start as many.
    """

    def __init__(self, settings: RankSettings) -> None:
        self._settings = settings
        self.signals = Signals()
        self.world = World(settings.count, settings.timeout)
        self.signals.hold()
        self.agreed: List[signal.Signals] = []

    def deal(self) -> None:
        """Let Caffe's ``Data`` layers, as they are built, deal records out among the ranks.

        As in ``P2PSync``, each rank has random numbers of its own.
        """
        caffe: Any = pycaffe.compiled()
        caffe.set_multiprocess(True)
        caffe.set_solver_count(self.world.size)
        caffe.set_solver_rank(self.world.rank)
        if self.world.rank and self._settings.random_seed >= 0:
            caffe.set_random_seed(self._settings.random_seed + self.world.rank)

    def dealt(self) -> None:
        """Called once the net is built: ``Solve`` and ``Snapshot`` want a solver that is alone."""
        caffe: Any = pycaffe.compiled()
        caffe.set_solver_count(1)
        caffe.set_solver_rank(0)
        caffe.set_multiprocess(False)

    def begin(
        self, settings: UpdateSettings, updater: Updater, iteration: int, state: Iterable[Floats]
    ) -> None:
        """Begin with rank 0's weights and state.

        Raises:
            UserError: the ranks do not train the same net from the same iteration.
        """
        self._refuse_difference("another iteration", iteration)
        told = (settings.rule, settings.hyperparameters, settings.parameters)
        self._refuse_difference("another net or other settings", zlib.crc32(repr(told).encode()))
        for p in updater.parameters:
            self.world.broadcast(p.data)
        for array in state:
            self.world.broadcast(array)
        statistics = [p.name for p in settings.parameters if p.statistic]
        self.exchange = Exchange(
            self.world, updater.parameters, statistics, self._settings.buckets, extra=2
        )
        self._updater = updater
        # What is left in the diffs is this rank's; Caffe's own are zero already.
        updater.clears_diffs = updater.keeps_update = False

    def backward(self, net: Net, last_pass: bool) -> None:
        """Run a net's backward; in the last pass, send gradients as they are complete."""
        layer, names = len(net.layers) - 1, list(net._layer_names)
        for number, before in enumerate(self._settings.sent_before if last_pass else ()):
            net._backward(layer, names.index(before))
            self.exchange.ready(number)
            layer = names.index(before) - 1
        net._backward(layer, 0)

    def complete(self, iteration: int) -> None:
        """Let the gradients be the mean of all ranks'; hear what any of them was asked for.

        Raises:
            UserError: a rank is lost, or its weights are not those of the others.
        """
        meant = (STOP, SNAPSHOT)
        self.exchange.extra[:] = [self.signals.take(one) for one in meant]
        self.exchange.complete(iteration)
        every = self._settings.check_every
        if every and iteration % every == 0:
            self._refuse_drift(iteration)
        self.agreed += [one for one, asked in zip(meant, self.exchange.extra) if asked]

    def _refuse_drift(self, iteration: int) -> None:
        """Check that all ranks have the same weights and states, to the bit."""
        digest = 0
        for p in self._updater.parameters:
            for array in (p.data, *p.state.values()):
                digest = zlib.crc32(array.data, digest)
        self._refuse_difference(f"other weights before iteration {iteration}", digest)

    def _refuse_difference(self, what: str, value: int) -> None:
        found = self.world.all_have(value, "in comparing what they have")
        usual = Counter(found.values()).most_common(1)[0][0]
        others = [rank for rank, its in found.items() if its != usual]
        if others:
            ranks = "rank" if len(others) == 1 else "ranks"
            raise UserError(f"{ranks} {', '.join(map(str, others))}: {what} than the others'")
