"""The keeper: an observer that removes the snapshots that a run need not keep."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.files import write_json
from caffe_pysgd.run.settings import TRAIN_LOSS, KeepSettings
from caffe_pysgd.stock.complete import is_complete
from caffe_pysgd.stock.snapshot_names import kept_record, snapshot_names
from caffe_pysgd.update import Observer, Parameter

Scores = Sequence[Tuple[int, str, Any]]


class SnapshotKeeper(Observer):
    """Keeps the newest snapshots and the best one, and removes others that the run wrote.

    It is told of a snapshot when its files are written, in each host before the next forward pass.
    Nothing is removed before the newest is complete. What the run wrote, and how it scored, stands
    in a file beside the snapshots: a run that goes on reads it.

    Args:
        settings: which stay.
        log: is told why nothing is removed.
    """

    def __init__(self, settings: KeepSettings, log: Callable[[str], None]) -> None:
        self._settings, self._log = settings, log
        self._record = kept_record(settings.prefix)
        self._written: Set[int] = set()  # iterations
        self._scores: Dict[int, float] = {}
        self._resumed = self._begun = False
        self._next = 0  # the iteration that the next update should be
        self._early: List[Scores] = []
        self._loss = math.nan

    # -- what hosts say ---------------------------------------------------------------------------

    def due(self, iteration: int) -> bool:
        return False

    def restored(self) -> None:
        self._resumed, self._begun = True, False

    def begin(self, iteration: int, rate: np.float32, parameters: Sequence[Parameter]) -> bool:
        self._begin(iteration)
        self._next = iteration + 1
        return True

    def loss(self, raw: np.float32, smoothed: np.float32) -> None:
        self._loss = float(smoothed)

    def tested(self, iteration: Optional[int], net: int, scores: Scores) -> None:
        if not self._begun:  # a test of what the run goes on from
            self._early.append(scores)
            return
        self._score(self._next if iteration is None else iteration, scores)
        self._tidy()

    def snapshot_taken(self, iteration: int, paths: Sequence[Path]) -> None:
        self._begin(iteration)
        if not all(map(is_complete, paths)):
            self._log(f"caffe-pysgd: {paths[-1]} is not complete; no snapshot is removed")
            return
        self._written.add(iteration)
        if self._settings.best == TRAIN_LOSS:
            self._scores[iteration] = self._loss
        self._tidy()

    # -- what it does -----------------------------------------------------------------------------

    def _begin(self, iteration: int) -> None:
        """Take up what a run that goes on wrote up to here, the snapshot that it is at included."""
        if self._begun:
            return
        self._begun = True
        if self._resumed:
            noted = {number: score for number, score in self._read().items() if number <= iteration}
            self._written = set(noted)
            self._scores = {n: float(score) for n, score in noted.items() if score is not None}
            if all(map(is_complete, self._files(iteration))):
                self._written.add(iteration)
        for scores in self._early:
            self._score(iteration, scores)
        self._early.clear()

    def _score(self, iteration: int, scores: Scores) -> None:
        """Take in the output that decides, of the first test net that has it."""
        for _, name, value in scores:
            if name == self._settings.best:
                self._scores.setdefault(iteration, float(value))

    def _tidy(self) -> None:
        """Remove what need not stay, and note what does."""
        for iteration in self._written - self._kept():
            self._written.remove(iteration)
            for path in reversed(self._files(iteration)):  # a state is of no use without its model
                with suppress(OSError):
                    path.unlink()
        try:
            write_json(self._record, {n: self._scores.get(n) for n in sorted(self._written)})
        except UserError as error:  # what is not noted stays
            self._log(f"caffe-pysgd: {error}")

    def _kept(self) -> Set[int]:
        """Return the iterations whose snapshots stay; of equal scores, the earlier."""
        kept = set(sorted(self._written)[-self._settings.last :])
        sign = -1 if self._settings.highest else 1
        scored = [(sign * self._scores[n], n) for n in self._written if n in self._scores]
        numbers = sorted(pair for pair in scored if not math.isnan(pair[0]))
        return kept | {iteration for _, iteration in numbers[:1]}

    def _files(self, iteration: int) -> Tuple[Path, Path]:
        return snapshot_names(self._settings.prefix, iteration, self._settings.hdf5)

    def _read(self) -> Dict[int, Optional[float]]:
        """Return what the record says; a damaged one says nothing, and then nothing is removed."""
        try:
            content = json.loads(self._record.read_text(encoding="utf-8"))
            return {int(n): None if score is None else float(score) for n, score in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
