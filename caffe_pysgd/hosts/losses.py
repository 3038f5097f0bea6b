"""What the hosts tell their observers: the loss and the test scores, as Caffe computes them."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.stock.protocols import Blob, Net
from caffe_pysgd.update.kernels import Kernels

F = np.float32

Function = TypeVar("Function", bound=Callable[..., Any])


def as_silent_as_c(function: Function) -> Function:
    """Let a function's arithmetic overflow without a warning."""
    return np.errstate(all="ignore")(function)  # type: ignore[no-any-return]


class SmoothedLoss:
    """``Solver::UpdateSmoothedLoss``, in its float arithmetic.

    Args:
        start: the iteration at which this call of ``Step`` began.
        average_loss: the mean of how many losses it is.

    Attributes:
        value: the mean of the last losses.
    """

    def __init__(self, start: int, average_loss: int) -> None:
        self.value = F(0)
        self._start, self._average_loss = start, average_loss
        self._losses: List[np.float32] = []

    @as_silent_as_c
    def add(self, iteration: int, loss: np.float32) -> np.float32:
        """Take the loss of an iteration in; return the mean."""
        if len(self._losses) < self._average_loss:
            self._losses.append(loss)
            size = F(len(self._losses))
            self.value = (self.value * (size - F(1)) + loss) / size
        else:
            index = (iteration - self._start) % self._average_loss
            self.value += (loss - self._losses[index]) / F(self._average_loss)
            self._losses[index] = loss
        return self.value


class Losses:
    """The loss of an iteration, put together as ``Layer``, ``Net`` and ``Solver::Step`` do.

    Args:
        average_loss, iter_size: the solver's.
    """

    def __init__(self, average_loss: int, iter_size: int) -> None:
        self._average_loss, self._iter_size = average_loss, iter_size
        self.begin_step(0)
        self._pass = F(0)
        self._sum = F(0)

    def begin_step(self, iteration: int) -> None:
        """Called when ``Step`` begins, which resets the smoothed loss."""
        self._smoothed = SmoothedLoss(iteration, self._average_loss)

    def begin_iteration(self) -> None:
        """Called before the first forward pass of an iteration."""
        self._sum = F(0)

    def pass_begins(self) -> None:
        """Called before a forward pass."""
        self._pass = F(0)

    @as_silent_as_c
    def add(self, layer_loss: np.float32) -> None:
        """Take in what one layer adds to the loss."""
        self._pass += layer_loss

    @as_silent_as_c
    def pass_ends(self) -> None:
        """Called after a forward pass."""
        self._sum += self._pass

    def complete(self, iteration: int) -> Tuple[np.float32, np.float32]:
        """Return the loss of the iteration, raw and smoothed; there were all its passes."""
        loss = self._sum / F(self._iter_size)
        return loss, self._smoothed.add(iteration, loss)


@as_silent_as_c
def layer_loss(tops: Sequence[Blob], weights: Sequence[float], kernels: Optional[Kernels]) -> Any:
    """Return what a layer adds to the loss, as ``Layer::Forward``: tops times loss weights."""
    loss = F(0)
    for top, weight in zip(tops, weights):
        if not weight:
            continue
        data = top.data.reshape(-1)
        if data.size == 1 or kernels is None:
            loss += F((data * F(weight)).sum())
        else:
            loss += kernels.dot(data, np.full_like(data, weight))
    return loss


class NetLoss:
    """The loss of a pycaffe net after a forward pass, from its blobs.

    Attributes:
        last: the number of the net's last layer.
    """

    def __init__(self, net: Net, kernels: Kernels) -> None:
        self._kernels = kernels
        blobs, weights = net._blobs, net._blob_loss_weights
        self.last = len(net.layers) - 1
        self._layers = []
        for layer in range(len(net.layers)):
            tops = [top for top in net._top_ids(layer) if weights[top]]
            if tops:
                self._layers.append(([blobs[t] for t in tops], [weights[t] for t in tops]))

    def add_to(self, losses: Losses) -> None:
        """Add, layer by layer, what this pass came to."""
        losses.pass_begins()
        for tops, weights in self._layers:
            losses.add(layer_loss(tops, weights, self._kernels))
        losses.pass_ends()


class Scores:
    """The mean of a test net's outputs over its batches, as ``Solver::Test`` sums them up."""

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self.begin()

    def begin(self) -> None:
        """Begin with the first batch."""
        self._done = 0
        self._sum: Any = F(0)

    def add(self, values: Floats) -> Optional[Floats]:
        """Take in the outputs of one batch; return the mean after the last."""
        self._sum = self._sum + values if self._done else values.copy()
        self._done += 1
        if self._done < self._batches:
            return None
        mean = self._sum / F(self._batches)
        self.begin()
        return np.asarray(mean, F)
