"""The taps: layers behind those with a loss or a score, in place, that tell the recorder of them.

No Python object reaches the net of ``caffe train``, so this is how a loss gets out of it. A tap
changes nothing: it has its layer's loss weight, while that layer's own is 0.
"""

from __future__ import annotations

import json
from typing import Any, List, Optional, Sequence

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.fatal import exit_with_message
from caffe_pysgd.hosts.in_net.recording import InNetRecording
from caffe_pysgd.hosts.in_net.takeover import TakeOver
from caffe_pysgd.hosts.losses import Scores, layer_loss
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blobs

_caffe: Any = pycaffe.compiled()

_TRAIN = 0


class Tap(_caffe.Layer):  # type: ignore[name-defined]
    """One layer's tops, on their way out."""

    @exit_with_message
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.told = json.loads(self.param_str)
        self.training = self.phase == _TRAIN
        if self.training:
            take_over = TakeOver.begun
            if take_over is None or take_over.recording is None:
                raise UserError("the net has a tap but no hook that records; inject the net anew")
            self.recording: Optional[InNetRecording] = take_over.recording
        else:
            self.recording = InNetRecording.by_file.get(self.told["file"])
            self.net_number = self._which_net()
            self.scores = Scores(self.told["batches"][str(self.net_number)])

    def _which_net(self) -> int:
        """Return the number of the test net: Caffe sets them up in order."""
        nets: List[int] = self.told["nets"]
        if self.recording is None:
            return nets[0]
        number: int = self.recording.next_net(self.told["layer"], nets)
        return number

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    @exit_with_message
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.recording is None:
            return
        tops = [top[index] for index in range(len(top))]
        if self.training:
            weights = self.told["weights"]
            self.recording.losses.add(layer_loss(tops, weights, self.recording.kernels))
            return
        values = [np.array(one.data, np.float32).reshape(-1) for one in tops]
        mean = self.scores.add(np.concatenate(values))
        if mean is not None:
            parts = np.split(mean, np.cumsum([value.size for value in values])[:-1])
            outputs = self.told["outputs"][str(self.net_number)]
            self.recording.tested(self.net_number, outputs, dict(zip(self.told["tops"], parts)))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass  # in place: the diff that the tap passes on is the one it got
