"""Inside ``caffe train``: what observers hear of losses, tests and Caffe's snapshots."""

from __future__ import annotations

import os
import sys
import time
import weakref
from pathlib import Path
from typing import ClassVar, Dict, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.audit import manifest
from caffe_pysgd.hosts.at_exit import at_exit
from caffe_pysgd.hosts.audience import close_all, stopped_line
from caffe_pysgd.hosts.losses import Losses
from caffe_pysgd.run.settings import AuditSettings, UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshot_names import snapshot_names, state_name
from caffe_pysgd.update import Observer
from caffe_pysgd.update.kernels import Kernels


class InNetRecording:
    """Tells the observers of an in-net update what its taps bring in, and of Caffe's snapshots.

    Attributes:
        losses: the loss, as the taps of the train net see it.
        kernels: the update's; None before the first forward.
    """

    by_file: ClassVar[weakref.WeakValueDictionary[str, InNetRecording]] = (
        weakref.WeakValueDictionary()
    )

    def __init__(self, settings: UpdateSettings, observers: Sequence[Observer]) -> None:
        assert settings.audit is not None
        self.settings: AuditSettings = settings.audit
        self._observers = observers
        iter_size = int(settings.hyperparameters["iter_size"])
        self.losses = Losses(self.settings.average_loss, iter_size)
        self.kernels: Optional[Kernels] = None
        self._done = 0  # updates
        self._seen: Optional[Path] = None
        self._began = time.time()
        self._scores: Dict[int, Dict[str, Floats]] = {}
        self._set_up: Dict[str, int] = {}
        self.by_file[self.settings.file] = self
        _at_exit(self)

    def start(self, kernels: Kernels, iteration: int) -> None:
        """Called before the first forward pass."""
        self.kernels, self._done = kernels, iteration
        self.losses.begin_step(iteration)

    def pass_begins(self, first: bool) -> None:
        """Called before a forward pass; ``first`` says whether it is its iteration's first."""
        if first:
            self.look_for_snapshot()
            self.losses.begin_iteration()
            for observer in self._observers:
                observer.iteration_begins()
        self.losses.pass_begins()

    def update_begins(self, iteration: int) -> np.float32:
        """Called when all gradients of an iteration are complete; return the smoothed loss.

        It is infinite where the taps do not see all of the loss.
        """
        self._done = iteration + 1
        if not self.settings.records_loss:
            return np.float32(np.inf)
        loss, smoothed = self.losses.complete(iteration)
        for observer in self._observers:
            observer.loss(loss, smoothed)
        return smoothed

    def look_for_snapshot(self) -> None:
        """Tell of the snapshot of the last update, if Caffe has taken one.

        Caffe writes it before it goes on, so a file that is there by now is complete.
        """
        settings = self.settings
        name = state_name(settings.snapshot_prefix, self._done, settings.hdf5)
        try:
            # The clock of a file system may be a tick behind.
            fresh = os.stat(name).st_mtime > self._began - 0.05
        except OSError:  # as nearly always, so no time is spent on more than its name
            return
        model, state = self._snapshot()
        if fresh and state != self._seen:
            self._seen = state
            for observer in self._observers:
                observer.snapshot_taken(self._done, [model, state])

    def _snapshot(self) -> Tuple[Path, Path]:
        settings = self.settings
        return snapshot_names(settings.snapshot_prefix, self._done, settings.hdf5)

    def next_net(self, layer: str, nets: Sequence[int]) -> int:
        """Return which of its test nets a tap is set up in: Caffe sets them up in order."""
        number = self._set_up.get(layer, 0)
        self._set_up[layer] = number + 1
        return nets[number % len(nets)]

    def tested(self, net: int, wanted: Sequence[str], scores: Dict[str, Floats]) -> None:
        """Take in the mean scores of some outputs; tell them once all of the net's are there."""
        known = self._scores.setdefault(net, {})
        known.update(scores)
        if set(known) >= set(wanted):
            values = [(name, value) for name in sorted(known) for value in known[name]]
            rows = [(number, name, value) for number, (name, value) in enumerate(values)]
            for observer in self._observers:
                observer.tested(None, net, rows)
            known.clear()

    def end(self) -> None:
        """Called when the process ends."""
        if self.kernels is not None:
            self.look_for_snapshot()
        close_all(self._observers)
        self._say_how_to_go_on()

    def _say_how_to_go_on(self) -> None:
        """Say it where Caffe was stopped by a signal, and took a snapshot."""
        command = manifest.read(Path(self.settings.manifest)).get("command", [])
        _, state = self._snapshot()
        if self._done < self.settings.max_iter and self._seen == state and "train" in command:
            sys.stderr.write(stopped_line(self._done, command, state))
            sys.stderr.flush()


def _at_exit(recording: InNetRecording) -> None:
    """End the recording with the process, in the ``caffe`` binary too."""
    if not pycaffe.in_caffe_binary():
        weakref.finalize(recording, close_all, recording._observers)
        return
    at_exit(recording.end)
