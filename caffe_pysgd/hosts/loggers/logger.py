"""What a logger is: it is given numbers while a run trains, and takes them elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.audit.schema import TAGS
from caffe_pysgd.run.settings import UpdateSettings
from caffe_pysgd.update import Observer
from caffe_pysgd.update.stages import Clipping


class Logger(Observer):
    """Base of all loggers; ``begin_run``, ``log`` and ``end_run`` are there to be overridden.

    It is made before Caffe's nets are complete, so what takes time belongs into ``begin_run``.

    Args:
        settings: what the update is told: rule, hyper-parameters, ...
        folder: the run directory.
        every: the loss and the rate are given at each n-th iteration, test scores always.

    Attributes:
        settings, folder, every: these.
    """

    def __init__(self, settings: UpdateSettings, folder: Path, every: int) -> None:
        self.settings, self.folder, self.every = settings, folder, every
        self._begun = False
        self._next = 0
        self._loss: Optional[Tuple[np.float32, np.float32]] = None
        self._early: List[Tuple[int, Dict[str, float]]] = []  # scores before the first update

    def begin_run(self, iteration: int) -> None:
        """Called once, before anything is logged; ``iteration`` is more than 0 after a resume."""

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Called with numbers by name.

        Names are ``loss/batch``, ``loss/averaged``, ``run/rate`` and ``test/NET/OUTPUT``. The
        iteration of a score is the one at which Caffe tests; else it is that of the update.
        """

    def end_run(self) -> None:
        """Called when training ends, if anything was logged."""

    # -- what hosts say ---------------------------------------------------------------------------

    def due(self, iteration: int) -> bool:
        return False

    def begin(self, iteration: int, rate: np.float32, parameters: Sequence[Any]) -> bool:
        if not self._begun:
            self._begun, self._next = True, iteration
            self.begin_run(iteration)
            for at, values in self._early:
                self.log(iteration if at < 0 else at, values)
            self._early.clear()
        return True

    def loss(self, raw: np.float32, smoothed: np.float32) -> None:
        self._loss = raw, smoothed

    def updated(self, iteration: int, rate: np.float32, clipping: Optional[Clipping]) -> None:
        self._next = iteration + 1
        loss, self._loss = self._loss, None
        if iteration % self.every:
            return
        values: Dict[str, float] = {TAGS["rate"]: float(rate)}
        if loss:
            values[TAGS["loss"]], values[TAGS["smoothed_loss"]] = map(float, loss)
        self.log(iteration, values)

    def tested(
        self, iteration: Optional[int], net: int, scores: Sequence[Tuple[int, str, Any]]
    ) -> None:
        names = [name for _, name, _ in scores]
        values = {
            f"test/{net}/{name}" + (f"[{n}]" if names.count(name) > 1 else ""): float(value)
            for n, name, value in scores
        }
        if not self._begun:  # nobody knows yet whether the run goes on from a snapshot
            self._early.append((-1 if iteration is None else iteration, values))
        else:
            self.log(self._next if iteration is None else iteration, values)

    def close(self) -> None:
        if self._begun:
            self._begun = False
            self.end_run()
