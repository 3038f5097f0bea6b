"""This process's share of a sweep: it takes runs from the queue until none is left."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from caffe_pysgd.errors import UserError
from caffe_pysgd.experiments.child import Child, write_run
from caffe_pysgd.experiments.progress import Progress, objective_value, read_progress
from caffe_pysgd.experiments.space import suggest
from caffe_pysgd.experiments.study import (
    STATES,
    frozen_trial,
    import_optuna,
    interruptions,
    is_lost,
    is_taken,
    name_asked_run,
    queue_again,
    running,
    take_up,
    this_worker,
    waiting,
)
from caffe_pysgd.experiments.sweep_file import Sweep, threads
from caffe_pysgd.files import write_json

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

RUNS, RESULT = "runs", "result.json"

_LOOK_SECONDS = 1.0  # from one look at a run to the next
_MOST_INTERRUPTIONS = 10

Say = Callable[[str], object]


class _NotTrained(Exception):
    """A trial that trains nothing: its run is another's, or there is none."""


class _Interrupted(Exception):
    """A run that ended from outside, and is put back into the queue."""


class _Failed(Exception):
    """A run that failed, and why."""


@dataclass
class Now:
    """What a run of this process does at the moment."""

    progress: Progress
    started: float
    first: Optional[int] = None  # the iteration that it was seen at first

    def speed(self) -> Optional[float]:
        """Return iterations a second since this process started it."""
        done = self.progress.iteration - (self.first or 0)
        return done / (time.monotonic() - self.started) if self.first is not None and done else None


class Runner:
    """Trains runs of a sweep, some at once.

    Args:
        sweep: what is swept.
        study: its runs.
        jobs: how many are trained at once.
        say: told when a run starts and how it ended.

    Attributes:
        now: what the runs of this process do, by name.
    """

    def __init__(self, sweep: Sweep, study: Study, jobs: int, say: Say) -> None:
        self.sweep, self.study = sweep, study
        self.now: Dict[str, Now] = {}
        self._say, self._stopping = say, threading.Event()
        self._threads = threads(jobs)
        self._fault: Optional[Exception] = None
        hours = sweep.options.budget.hours
        self._until = math.inf if hours is None else time.monotonic() + hours * 3600
        self._workers = [threading.Thread(target=self._work) for _ in range(jobs)]

    def start(self) -> None:
        """Begin to train."""
        take_up(self.sweep, self.study)
        for worker in self._workers:
            worker.start()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until all runs have ended; return whether they have."""
        until = time.monotonic() + seconds
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def stop(self) -> None:
        """End the runs that are trained, and put them back into the queue."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until nothing is trained any more.

        Raises:
            Exception: what ended a worker of this process, such as a storage that is gone.
        """
        for worker in self._workers:
            if worker.ident is not None:
                worker.join()
        if self._fault:
            raise self._fault

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def _work(self) -> None:
        try:
            self._take_runs()
        except Exception as error:  # of the storage, or a fault of ours
            self._fault = error
            self.stop()

    def _take_runs(self) -> None:
        while not self.is_stopping:
            out_of_time = time.monotonic() > self._until
            if not out_of_time and (waiting(self.study) or self._goes_on_asking()):
                self.study.optimize(
                    self._train,
                    n_trials=1,
                    catch=(_NotTrained, _Interrupted, _Failed),
                    callbacks=[self._say_end],
                )
            elif running(self.study) and not out_of_time:
                self._stopping.wait(_LOOK_SECONDS)  # another's may have to be taken up
                take_up(self.sweep, self.study)
            else:
                return

    def _goes_on_asking(self) -> bool:
        return not self.sweep.is_planned and self.sweep.options.budget.runs is None

    # -- one run ----------------------------------------------------------------------------------

    def _train(self, trial: Trial) -> float:
        """Train the run of a trial; return what it is worth."""
        try:
            self._settle(trial)
        except _NotTrained:
            trial.set_user_attr("void", True)
            raise
        name, values = trial.user_attrs["run"], trial.user_attrs["values"]
        folder = self.sweep.directory / RUNS / name
        host, started = self.sweep.host_of(values), time.monotonic()
        self.now[name] = Now(Progress(), started)
        try:
            value = self._train_in(folder, host, trial)
        except _Interrupted:
            if not self.is_stopping:
                self._say(f"{name}: was ended from outside; it goes on later")
            queue_again(self.study, frozen_trial(self.study, trial))
            raise
        except import_optuna().TrialPruned:
            self._end(trial, folder, "pruned", started)
            raise
        except Exception as error:
            own = isinstance(error, (_Failed, UserError))
            reason = str(error) if own else f"{type(error).__name__}: {error}"
            trial.set_user_attr("reason", reason)
            self._end(trial, folder, "failed", started, reason=reason)
            raise _Failed(reason) from error
        finally:
            self.now.pop(name, None)
        self._end(trial, folder, "finished", started, value=value)
        return value

    def _settle(self, trial: Trial) -> None:
        """Give a trial the values of its run.

        Raises:
            _NotTrained: it has none, or somebody else trains it.
        """
        trial.set_user_attr("worker", this_worker())
        trial.set_user_attr("threads", self._threads)
        if "run" not in trial.user_attrs:
            if "asked" not in trial.user_attrs and not self._goes_on_asking():
                raise _NotTrained  # somebody else was faster
            name_asked_run(self.sweep, self.study, trial, suggest(self.sweep.space, trial))
        elif not is_taken(self.study, trial):
            suggest(self.sweep.space, trial)  # what it has by now, for samplers and importance
        else:
            raise _NotTrained

    def _train_in(self, folder: Path, host: str, trial: Trial) -> float:
        name, attributes = folder.name, trial.user_attrs
        content = self.sweep.run_content(attributes["values"])
        write_run(folder, content, attributes["seed"])
        child = Child(folder, host, self._threads)
        self._say(f"{name}: started")
        reported: Dict[int, float] = {}
        try:
            while child.wait(_LOOK_SECONDS) is None:
                if self.is_stopping:
                    raise _Interrupted
                self._look(folder, host, trial, reported)
        finally:
            if child.process.poll() is None:
                child.kill()
        if child.was_interrupted:
            if interruptions(frozen_trial(self.study, trial)) >= _MOST_INTERRUPTIONS:
                raise _Failed(f"was ended from outside {_MOST_INTERRUPTIONS + 1} times")
            raise _Interrupted
        if child.process.returncode != 0:
            raise _Failed(child.failure())
        return self._value(folder, host, trial)

    def _look(self, folder: Path, host: str, trial: Trial, reported: Dict[int, float]) -> None:
        """Look at a run that trains; tell Optuna of new scores.

        Raises:
            TrialPruned: Optuna says that it is not worth going on.
            _Failed: it diverged.
        """
        objective = self.sweep.options.objective
        progress = read_progress(folder, host, objective)
        now = self.now[folder.name]
        now.progress = progress
        if now.first is None and progress.losses:
            now.first, now.started = progress.iteration, time.monotonic()
        if progress.loss is not None and not math.isfinite(progress.loss):
            raise _Failed(f"diverged: the loss is {progress.loss} at {progress.iteration}")
        if self.sweep.options.pruner is None:
            return
        new = {i: v for i, v in progress.curve(objective).items() if i not in reported}
        for iteration, value in sorted(new.items()):
            if math.isfinite(value):
                trial.report(value, iteration)
        reported.update(new)
        if new and trial.should_prune():
            raise import_optuna().TrialPruned

    def _value(self, folder: Path, host: str, trial: Trial) -> float:
        objective = self.sweep.options.objective
        progress = read_progress(folder, host, objective)
        value = objective_value(progress.curve(objective), objective)
        if math.isnan(value):
            known = ", ".join(f"{name} of net {net}" for net, name in progress.tests) or "none"
            wanted = objective.score or "loss"
            raise _Failed(f"there is no finite {wanted}; its test scores are {known}")
        last = {f"{name} of net {net}": c[max(c)] for (net, name), c in progress.tests.items()}
        trial.set_user_attr("scores", last)
        return value

    def _end(self, trial: Trial, folder: Path, state: str, started: float, **others: Any) -> None:
        """Write down how a run ended."""
        seconds = round(time.monotonic() - started, 3)
        trial.set_user_attr("seconds", seconds)
        attributes = {k: v for k, v in trial.user_attrs.items() if k != "worker"}
        result = {
            "state": state,
            **others,
            **attributes,
            "host": self.sweep.host_of(attributes["values"]),
        }
        write_json(folder / RESULT, result)

    def _say_end(self, _: Study, trial: FrozenTrial) -> None:
        """Say how a run ended, once the storage holds it: a kill in between trains it again."""
        if trial.user_attrs.get("void") or is_lost(trial):
            return
        name, state = trial.user_attrs["run"], STATES[trial.state.name]
        what = trial.user_attrs.get("reason")
        if state == "finished":
            what = f"{trial.value:.6g}"
        self._say(f"{name}: {state}{f': {what}' if what else ''}")
