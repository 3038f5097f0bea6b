"""Who watches a run: what its settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence

import numpy as np

from caffe_pysgd.audit import manifest
from caffe_pysgd.audit.recorder import Recorder
from caffe_pysgd.hosts.loggers import make_loggers
from caffe_pysgd.hosts.snapshot_keeper import SnapshotKeeper
from caffe_pysgd.run.settings import UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import Observer, Updater
from caffe_pysgd.update.guard import Guard

if TYPE_CHECKING:
    from caffe_pysgd.run.run import Run


def observers_of(
    settings: UpdateSettings,
    host: str,
    run: Optional[Run] = None,
    harmed: Callable[[], None] = lambda: None,
) -> List[Observer]:
    """Return the recorder, the keeper of snapshots, the guard and loggers, as asked for.

    Args:
        settings: what the update is told.
        host: ``in-net``, ``hook`` or ``solver``.
        run: what is known of it is written down; where it is not given, what the manifest says
            that the audit names.
        harmed: called when the guard found what is not finite.
    """
    observers: List[Observer] = []
    recorder = None
    if settings.audit:
        stated = None
        if run:
            from caffe_pysgd.audit.plan import statement  # which no layer inside Caffe takes

            stated = statement(run)
        recorder = Recorder(settings, host, pycaffe.compiled().log, stated)
        observers.append(recorder)
    if settings.keep:
        observers.append(SnapshotKeeper(settings.keep, pycaffe.compiled().log))
    if settings.on_nonfinite:

        def told(*found: Any) -> None:
            harmed()
            if recorder:
                recorder.nonfinite(*found)

        measured = recorder.figures_due if recorder else lambda iteration: False
        observers.append(Guard(settings.on_nonfinite, measured, told))
    return [*observers, *make_loggers(settings)]


def tell_updated(updater: Updater, iteration: int, rate: np.float32) -> None:
    """Tell the observers that the update is over.

    Raises:
        UserError: one of them stops the training; by then all have heard that it ends.
    """
    try:
        for observer in updater.observers:
            observer.updated(iteration, rate, updater.clipping)
    except BaseException:
        close_all(updater.observers)
        raise


def stopped_line(iteration: int, command: Sequence[str], state: Path) -> str:
    """Return what a person is told whose signal stopped a run."""
    again = manifest.going_on(command, state)
    return f"caffe-pysgd: stopped at iteration {iteration}; to go on: {again}\n"


class LastSnapshot(Observer):
    """Remembers the solver state that was written last."""

    state: Optional[Path] = None

    def due(self, iteration: int) -> bool:
        return False

    def snapshot_taken(self, iteration: int, paths: Sequence[Path]) -> None:
        self.state = paths[-1]


def close_all(observers: Sequence[Observer]) -> None:
    """Tell observers that training ends."""
    for observer in observers:
        observer.close()
