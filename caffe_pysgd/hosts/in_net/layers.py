"""The in-net host: three Python layers through which Python owns the update of ``caffe train``.

``prototxt_templates/`` shows them as a Caffe user sees them, ``docs/in-net.md`` tells why there are
three. In short: the *hook* is first in the net, so its backward runs last and finds every gradient
complete; *parameters* shares every learnable parameter by name, or owns them; the *seal* is last,
and connects the two once the net has registered all that it registers. A net sets its layers up one
after another, so the take-over that the hook begins is the one that the next seal completes.
"""

from __future__ import annotations

from typing import Any, Sequence

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.fatal import exit_with_message
from caffe_pysgd.hosts.in_net.initial import initial_blobs
from caffe_pysgd.hosts.in_net.takeover import TakeOver
from caffe_pysgd.run.settings import UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blobs

_caffe: Any = pycaffe.compiled()

LOSS, RATE, UPDATE_L2, UPDATE_RATIO = range(4)  # the hook's tops


class Hook(_caffe.Layer):  # type: ignore[name-defined]
    """The first layer: its backward is the update."""

    @exit_with_message
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.take_over = TakeOver(UpdateSettings.from_json(self.param_str), self)
        TakeOver.begun = self.take_over
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 0
        if self.take_over.settings.registered:
            self.take_over.add_state_blobs()
        for index in range(len(top)):  # pycaffe cannot iterate over these
            top[index].reshape(1)
            if not self.take_over.settings.log_outputs:
                top[index].reshape(0)  # Caffe logs value by value
        top[LOSS].data[...] = 0
        self.shown = [top[index].data for index in (RATE, UPDATE_L2, UPDATE_RATIO)]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass  # as it was set up

    @exit_with_message
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.take_over.pass_begins()

    @exit_with_message
    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        take_over = self.take_over
        if take_over.recording:
            take_over.recording.losses.pass_ends()
        if take_over.gradients_complete():
            take_over.update()
            figures = take_over.figures
            for top_data, value in zip(self.shown, (take_over.rate, figures.l2, figures.ratio)):
                top_data[...] = value


class _AsideOfTheData(_caffe.Layer):  # type: ignore[name-defined]
    """A layer without tops and bottoms: it has nothing to do but its setup."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass


class Parameters(_AsideOfTheData):
    """Shares every learnable parameter by name; as the second layer of the net, it owns them."""

    @exit_with_message
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        take_over = TakeOver.begun
        if take_over is None:
            raise UserError("the net has a parameters layer but no hook; inject the net anew")
        if self.param_str:
            self.blobs.extend(initial_blobs(self.param_str, take_over.settings.parameters))
            take_over.owns_parameters = True
        else:
            for parameter in take_over.settings.parameters:
                self.blobs.add_blob(*parameter.shape)
        take_over.blobs = [self.blobs[i] for i in range(len(self.blobs))]
        take_over.parameters_layer = self


class Seal(_AsideOfTheData):
    """The last layer: completes the take-over once the net has registered its parameters."""

    @exit_with_message
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        take_over, TakeOver.begun = TakeOver.begun, None
        if take_over is None or not take_over.blobs:
            raise UserError("the net has a seal but no hook or parameters; inject the net anew")
        if take_over.ranks:
            take_over.ranks.dealt()
        # The net holds and shares the blobs by now; a layer without blobs is not snapshotted.
        del take_over.parameters_layer.blobs[:]
        if not take_over.settings.registered:
            take_over.add_state_blobs()
