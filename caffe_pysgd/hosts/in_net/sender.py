"""The layer that sends gradients to the other ranks while backward still runs."""

from __future__ import annotations

from typing import Any, Sequence

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.fatal import exit_with_message
from caffe_pysgd.hosts.in_net.takeover import TakeOver
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blobs

_caffe: Any = pycaffe.compiled()


class Sender(_caffe.Layer):  # type: ignore[name-defined]
    """In place: when backward comes here, the gradients of a bucket are complete."""

    @exit_with_message
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        take_over = TakeOver.begun
        if take_over is None or take_over.ranks is None:
            raise UserError("the net has a sender but no hook with ranks; inject the net anew")
        self.take_over, self.ranks, self.number = take_over, take_over.ranks, int(self.param_str)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    @exit_with_message
    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.take_over.in_last_pass():
            self.ranks.exchange.ready(self.number)
