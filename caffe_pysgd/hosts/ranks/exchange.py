"""The exchange: every rank gets the mean of all ranks' gradients, to the same bits.

Each rank sums one segment of the gradients, in the order of the ranks, and sends the mean to the
others: as many bytes as any algorithm needs, 2 (n - 1) / n of the gradients, and an order of
summation that depends on nothing but the number of ranks. (MPI's own ``Allreduce`` chooses its
order by algorithm, size and place.) The gradients go in buckets, so that some are on their way
while backward still computes others.

Ranks on one machine do not send values: each reads those of the others where they are, in shared
memory, and messages without content say when they are there. The sums, and so the bits, are the
same.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.hosts.ranks.shared import shared_zeros
from caffe_pysgd.hosts.ranks.world import World
from caffe_pysgd.update import Parameter

F = np.float32


class _Bucket:
    """Values whose mean over all ranks is taken in one go, in place.

    Args:
        world: the ranks.
        values: a flat float32 array.
        shared: where all ranks see it, the values of each, ``values`` among them, and a row for the
            mean.
        tag: tells its messages from those of other buckets; the next one is taken, too.
    """

    def __init__(self, world: World, values: Floats, shared: Optional[Floats], tag: int) -> None:
        bounds = [values.size * rank // world.size for rank in range(world.size + 1)]
        pieces = [slice(start, end) for start, end in zip(bounds, bounds[1:])]
        comm, peers, own = world.comm, world.peers, pieces[world.rank]
        self._values, self._means = values, None
        if shared is None:
            segments = [values[piece] for piece in pieces]
            mine = segments[world.rank]
            theirs = {peer: np.empty_like(mine) for peer in peers}
            self._in_order = [theirs.get(rank, mine) for rank in range(world.size)]
            self._total, self._mean = self._in_order[0], mine
        else:
            mine = np.empty(0, F)
            segments, theirs = [mine] * world.size, {peer: mine for peer in peers}
            *rows, self._means = shared
            self._in_order = [row[own] for row in rows]
            self._total = self._mean = self._means[own]
        # Persistent requests, each started once an iteration.
        self._scatter = {p: comm.Send_init(segments[p], p, tag) for p in peers}
        self._reduce = {p: comm.Recv_init(theirs[p], p, tag) for p in peers}
        self._announce = {p: comm.Send_init(mine, p, tag + 1) for p in peers}
        self._gather = {p: comm.Recv_init(segments[p], p, tag + 1) for p in peers}
        self._world, self._scale = world, F(1) / F(world.size)
        self._receiving: Dict[int, Any] = {}
        self._sending: Dict[int, Any] = {}
        self.started = self._summed = False

    def start(self) -> None:
        """Send what this rank has."""
        self._begin(self._reduce, self._scatter)
        self.started, self._summed = True, False

    def advance(self) -> None:
        """Go on with what has arrived."""
        arrived = self._world.done([*self._receiving.values(), *self._sending.values()])
        if arrived and not self._summed:
            self._sum()

    def finish(self, when: str) -> None:
        """Wait for the means."""
        if not self._summed:
            self._complete(when)
            self._sum()
        self._complete(when)
        if self._means is not None:
            self._values[...] = self._means
        self.started = False

    def _begin(self, receive: Dict[int, Any], send: Dict[int, Any]) -> None:
        for request in (*receive.values(), *send.values()):
            request.Start()
        self._receiving, self._sending = receive, send

    def _complete(self, when: str) -> None:
        self._world.wait(self._receiving, when)
        self._world.wait(self._sending, when)

    def _sum(self) -> None:
        first, second, *others = self._in_order
        with np.errstate(all="ignore"):  # overflow is as silent as in C++
            total = np.add(first, second, out=self._total)
            for part in others:
                total += part
            np.multiply(total, self._scale, out=self._mean)
        self._begin(self._gather, self._announce)
        self._summed = True


class Exchange:
    """Brings the parameters of all ranks together, iteration by iteration.

    The means are what the parameters' ``diff`` is from then on; Caffe's own diffs become zero.
    BatchNorm's running statistics are averaged themselves, for they have no gradient: all ranks
    have the same statistics, those of the mean of their batches.

    Args:
        world: the ranks.
        parameters: the updater's, in Caffe's order.
        statistics: the names of those that are running statistics.
        buckets: the numbers of the parameters whose gradients are complete together, one after
            the other; what is in none comes last.
        extra: how many further numbers are averaged, with the last bucket.

    Attributes:
        extra: these numbers.
    """

    def __init__(
        self,
        world: World,
        parameters: Sequence[Parameter],
        statistics: Sequence[str],
        buckets: Sequence[Sequence[int]],
        extra: int,
    ) -> None:
        early = {number for bucket in buckets for number in bucket}
        last = [number for number in range(len(parameters)) if number not in early]
        self._members = [*map(list, buckets), last]
        self._parameters, self._statistics = parameters, set(statistics)
        self._views: Dict[int, Floats] = {}
        self._diffs: Dict[int, Floats] = {}
        self._buckets: List[_Bucket] = []
        values = sum(p.count for p in parameters) + extra
        shared = shared_zeros(world, world.size + 1, values)
        here = np.zeros(values, F) if shared is None else shared[world.rank]
        at = 0
        for number, members in enumerate(self._members):
            start = at
            for member in members:
                end = at + parameters[member].count
                self._views[member], at = here[at:end], end
            if members is self._members[-1]:
                self.extra, at = here[at:], values
            own = None if shared is None else shared[:, start:at]
            self._buckets.append(_Bucket(world, here[start:at], own, 2 * number))

    def ready(self, number: int) -> None:
        """Send a bucket: its gradients are complete."""
        for member in self._members[number]:
            self._take(member)
        self._buckets[number].start()
        for bucket in self._buckets:
            if bucket.started:
                bucket.advance()

    def complete(self, iteration: int) -> None:
        """Wait for all means: backward is over.

        Raises:
            UserError: a rank did not answer in time.
        """
        for number, bucket in enumerate(self._buckets):
            if not bucket.started:
                self.ready(number)
        for bucket in self._buckets:
            bucket.finish(f"at iteration {iteration}")
        for number, p in enumerate(self._parameters):
            if p.name in self._statistics:
                p.data[...] = self._views[number]

    def _take(self, member: int) -> None:
        """Copy a gradient to where it is exchanged, and leave the update to find it there."""
        p, view = self._parameters[member], self._views[member]
        statistic = p.name in self._statistics
        if member not in self._diffs:
            self._diffs[member], p.diff = p.diff, np.zeros_like(view) if statistic else view
        diff = self._diffs[member]
        view[...] = p.data if statistic else diff
        diff.fill(0)
