"""What an observer is told, and when.

The updater reports what it does: every array at every stage, or only statistics of them. The host
reports what happens around the update: the loss, tests, snapshots. Neither knows who listens. The
audit, the guard against non-finite gradients, the statistics in Caffe's log and the progress bar
all use this one interface.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.stages import Clipping, Stage
from caffe_pysgd.update.statistics import Statistics


class Observer:
    """Base of all observers; each method may be overridden, and none has to be.

    Figures are cheap: the fused kernels take them in the same pass over memory as the update.
    Arrays make the update fall back on one operation after the other for that iteration.

    An array is the updater's own and is valid during the call only: copy what you keep.
    """

    # -- the update -------------------------------------------------------------------------------

    def due(self, iteration: int) -> bool:
        """Return whether this observer wants to see the arrays of this iteration."""
        return True

    def figures_due(self, iteration: int) -> bool:
        """Return whether this observer wants the figures of this iteration."""
        return False

    def begin(self, iteration: int, rate: np.float32, parameters: Sequence[Parameter]) -> bool:
        """Called when all gradients are complete; return whether to apply the update.

        This one is called at every iteration. Where an observer refuses, weights and history stay
        as they are, and ``end`` is called.
        """
        return True

    def observe(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        stage: Stage,
        array: Floats,
    ) -> None:
        """See one stage of one parameter; ``rate`` is the global rate of this iteration."""

    def measure(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        figures: Mapping[str, Statistics],
    ) -> None:
        """Called with the statistics of one parameter that was updated.

        They are by name: ``gradient`` (raw, as in the stage of that name), ``regularized``, the
        rule's slots (``history``, or ``m`` and ``v``, ...), ``update``, ``data`` (the new weights).
        """

    def end(self, iteration: int, rate: np.float32) -> None:
        """Called when the update of this iteration is complete.

        Called where arrays or figures were due, and where some observer refused the update.
        """

    # -- around it, told by the host --------------------------------------------------------------

    def restored(self) -> None:
        """Called when the solver resumes from a snapshot."""

    def iteration_begins(self) -> None:
        """Called before the first forward pass of an iteration."""

    def loss(self, raw: np.float32, smoothed: np.float32) -> None:
        """Called with the loss of the iteration whose update follows, as Caffe computes it."""

    def updated(self, iteration: int, rate: np.float32, clipping: Optional[Clipping]) -> None:
        """Called after every update; ``clipping`` is what ``clip_gradients`` did, or None.

        A UserError that is raised here stops the training.
        """

    def tested(
        self, iteration: Optional[int], net: int, scores: Sequence[Tuple[int, str, Any]]
    ) -> None:
        """Called with mean test scores.

        Args:
            iteration: at which Caffe tests; None for that of the next update.
            net: the number of the test net.
            scores: as (number of the output, its name, value).
        """

    def snapshot_taken(self, iteration: int, paths: Sequence[Path]) -> None:
        """Called when the files of a snapshot are complete."""

    def close(self) -> None:
        """Called when training ends; another iteration may follow all the same."""
