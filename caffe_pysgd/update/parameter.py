"""One learnable parameter of a net, as the update sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Parameter:
    """A learnable parameter: what Caffe calls a blob with data and diff.

    Attributes:
        name: its display name, ``layer/index``: ``conv1/0`` is the weights, ``conv1/1`` the bias.
        data: the weights; float32, flat, C-contiguous; changed in place.
        diff: the accumulated gradient, same shape; the update turns it into the update value.
        lr_mult: multiplies the global rate (``param { lr_mult }``).
        decay_mult: multiplies the global weight decay (``param { decay_mult }``).
    """

    name: str
    data: np.ndarray
    diff: np.ndarray
    lr_mult: float = 1.0
    decay_mult: float = 1.0

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self.data.size)
