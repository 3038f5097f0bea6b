"""What an observer of the update is told, and when.

An observer sees every array at every stage and changes nothing. The updater does not know who
listens; audit, statistics and the figures in Caffe's log all hang on this one interface.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from caffe_pysgd.update.parameter import Parameter


class Stage(Enum):
    """The stages of one update, in the order in which an observer hears of them.

    The first two come for all parameters before the others, because clipping looks at all of them;
    the others come parameter by parameter.
    """

    GRADIENT = "gradient"  # diff as forward and backward left it, summed over iter_size passes
    CLIPPED = "clipped"  # diff after clip_gradients
    NORMALIZED = "normalized"  # diff after the division by iter_size
    REGULARIZED = "regularized"  # diff after weight decay
    UPDATE = "update"  # the update value; data still hold the old weights
    DATA = "data"  # the new weights


class Observer:
    """Base of all observers; each method may be overridden, and none has to be.

    An array is the updater's own and is valid during the call only: copy what you keep.
    """

    def due(self, iteration: int) -> bool:
        """Return whether this observer wants to hear of this iteration at all."""
        return True

    def observe(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        stage: Stage,
        array: np.ndarray,
    ) -> None:
        """Hear of one stage of one parameter; ``rate`` is the global rate of this iteration."""

    def end(self, iteration: int, rate: np.float32) -> None:
        """Hear that the update of this iteration is complete."""
