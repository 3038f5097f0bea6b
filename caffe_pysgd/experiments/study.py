"""The sweep in Optuna's storage: its runs, those that wait, and those of workers that died.

A run is an Optuna trial; its user attributes say which: ``run`` (its folder's name), ``values``,
``seed``, ``worker``, and in the end ``reason`` if it failed. Every run waits in Optuna's queue
before it is trained, so two workers never take the same one. Of a run that was taken up again there
are several trials, of which the last one counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Tuple

from caffe_pysgd.errors import UserError
from caffe_pysgd.experiments.space import Point
from caffe_pysgd.experiments.sweep_file import SEED, PrunerOptions, Sweep, read_sweep, storage_url
from caffe_pysgd.files import write_json
from caffe_pysgd.optional import needed

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

HEARTBEAT, GRACE = 5, 20  # seconds between signs of life, and without one until a worker is dead
STATES = {  # Optuna's words, and ours
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "finished",
    "PRUNED": "pruned",
    "FAIL": "failed",
}

_STARTED = "sweep.json"
_ASKED = "asked"  # an attribute of runs of which Optuna chooses the values


def import_optuna() -> Any:
    """Return Optuna, quiet.

    Raises:
        UserError: it is not installed.
    """
    optuna = needed("optuna", "sweep needs Optuna", "sweep")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def open_sweep(directory: Path) -> Tuple[Sweep, Study]:
    """Return a sweep that was begun, and its study, which stays as it is.

    Raises:
        UserError: there is none in that folder, or its YAML is no more what it was.
    """
    try:
        source = json.loads((directory / _STARTED).read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory}: no sweep was begun here (there is no {_STARTED})") from error
    sweep = read_sweep(Path(source))
    return sweep, open_study(sweep, plan=False)


def open_study(sweep: Sweep, plan: bool = True) -> Study:
    """Return the sweep's study, made if it is not there yet.

    Args:
        sweep: whose it is.
        plan: whether to put its runs into the queue, those that are not there yet.

    Raises:
        UserError: the storage cannot be reached, or holds a sweep of this name that differs.
    """
    optuna = import_optuna()
    options = sweep.options
    samplers: Dict[str, Any] = {"tpe": optuna.samplers.TPESampler}
    with locked(sweep.directory):
        try:
            study: Study = optuna.create_study(
                study_name=sweep.name,
                storage=_storage(optuna, sweep),
                direction="maximize" if options.objective.maximized else "minimize",
                sampler=samplers.get(options.method, optuna.samplers.RandomSampler)(),
                pruner=_pruner(optuna, options.pruner),
                load_if_exists=True,
            )
        except Exception as error:  # of whatever library the storage's URL names
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{sweep.source}: storage: {options.storage}: {reason}") from error
        study.ask = partial(_ask, sweep, study.ask)  # type: ignore[method-assign]
        _check_same(sweep, study)
        if plan:
            _plan(sweep, study)
            write_json(sweep.directory / _STARTED, {"source": str(sweep.source)})
    return study


def _ask(sweep: Sweep, ask: Callable[..., Trial], *arguments: Any) -> Trial:
    """Take a run from the queue, one worker at a time: SQLite gives the same one to two at once."""
    with locked(sweep.directory):
        return ask(*arguments)


def _storage(optuna: Any, sweep: Sweep) -> Any:
    url = storage_url(sweep.options.storage, sweep.directory)
    if url == "journal":
        journal = optuna.storages.journal
        backend = journal.JournalFileBackend(str(sweep.directory / "study.journal"))
        return journal.JournalStorage(backend)
    return optuna.storages.RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {},
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )


def _pruner(optuna: Any, options: Optional[PrunerOptions]) -> Any:
    if options is None:
        return optuna.pruners.NopPruner()
    if options.kind == "median":
        return optuna.pruners.MedianPruner(options.startup_runs, options.warmup)
    least = options.warmup or "auto"
    bootstrap = options.startup_runs if options.warmup else 0
    return optuna.pruners.SuccessiveHalvingPruner(least, bootstrap_count=bootstrap)


def _check_same(sweep: Sweep, study: Study) -> None:
    known, ours = study.user_attrs.get("sweep"), sweep.fingerprint()
    if known is None:
        study.set_user_attr("sweep", ours)
        return
    for key, value in ours.items():
        if known.get(key) != value:
            raise UserError(
                f"{sweep.source}: {key}: is not what this sweep was begun with; put it back, or "
                "give another sweep_dir and name"
            )


def _plan(sweep: Sweep, study: Study) -> None:
    """Put runs that are not there yet into the queue."""
    trials = study.get_trials(deepcopy=False)
    if sweep.is_planned:
        there = {trial.user_attrs.get("run") for trial in trials if not is_lost(trial)}
        for attributes, params in planned_runs(sweep):
            if attributes["run"] not in there:
                study.enqueue_trial(params, user_attrs=attributes)
    elif sweep.options.budget.runs:
        there = {trial.user_attrs.get(_ASKED) for trial in trials if not is_lost(trial)}
        for number in range(-(-sweep.options.budget.runs // len(sweep.seeds))):
            if number not in there:
                study.enqueue_trial({}, user_attrs={_ASKED: number})


def planned_runs(sweep: Sweep) -> Iterator[Any]:
    """Yield the attributes and Optuna's parameters of each run of a grid or a zip."""
    points = sweep.points()
    names: Dict[str, int] = {}
    for seed in sweep.seeds:
        for point in points:
            attributes = _attributes(sweep, point, seed)
            name = attributes["run"]
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:  # values that differ in no digit that is shown
                attributes["run"] = f"{name}-{names[name]}"
            yield attributes, point.params


def _attributes(
    sweep: Sweep, point: Point, seed: int, number: Optional[int] = None
) -> Dict[str, Any]:
    name = sweep.run_name({**point.values, SEED: seed}, number)
    return {"run": name, "values": point.values, "seed": seed}


def name_asked_run(sweep: Sweep, study: Study, trial: Any, values: Dict[str, Any]) -> None:
    """Name a run of which Optuna chose the values; queue its repeats with the other seeds."""
    frozen = frozen_trial(study, trial)
    history = frozen.system_attrs.get("retry_history") or [trial.number]
    point = Point(values, trial.params)
    for seed in sweep.seeds[1:]:
        attributes = _attributes(sweep, point, seed, history[0])
        study.enqueue_trial(point.params, user_attrs=attributes)
    for name, value in _attributes(sweep, point, sweep.seeds[0], history[0]).items():
        trial.set_user_attr(name, value)


def is_lost(trial: FrozenTrial) -> bool:
    """Return whether a trial failed for no reason of its run's."""
    return trial.state.name == "FAIL" and "reason" not in trial.user_attrs


def runs_of(study: Study) -> Dict[str, FrozenTrial]:
    """Return the trial that counts of each run that has a name, in the order of the queue."""
    runs: Dict[str, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        name = trial.user_attrs.get("run")
        if name is not None and not trial.user_attrs.get("void"):
            runs[name] = trial
    return runs


def is_taken(study: Study, trial: Any) -> bool:
    """Return whether a run is trained by somebody else, or was trained."""
    for other in study.get_trials(deepcopy=False):
        same = other.user_attrs.get("run") == trial.user_attrs["run"]
        if same and other.number != trial.number and not is_lost(other):
            state = other.state.name
            if state not in ("WAITING", "RUNNING") or (
                state == "RUNNING" and other.number < trial.number
            ):
                return True
    return False


def waiting(study: Study) -> int:
    """Return how many runs wait."""
    return sum(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False))


def running(study: Study) -> int:
    """Return how many runs are being trained, by whomever."""
    return sum(trial.state.name == "RUNNING" for trial in study.get_trials(deepcopy=False))


# -- workers --------------------------------------------------------------------------------------


def this_worker() -> str:
    """Return what this process is called among all that were ever started."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _started(process: int) -> str:
    """Return when a process was started; nothing if it is not there."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _is_dead(worker: str) -> bool:
    """Return whether a worker of this machine is gone; of another machine nothing is known."""
    host, process, started = worker.rsplit(":", 2)
    return host == socket.gethostname() and _started(int(process)) != started


def take_up(sweep: Sweep, study: Study) -> None:
    """Put the runs of workers that died back into the queue."""
    optuna = import_optuna()
    with locked(sweep.directory):
        optuna.storages.fail_stale_trials(study)
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if _is_dead(worker) if worker else _age(trial) > GRACE:
                put_back(study, trial.number)


def put_back(study: Study, number: int) -> None:
    """End a trial whose run did not end, and put the run back into the queue."""
    optuna = import_optuna()
    try:
        trial = study.tell(number, state=optuna.trial.TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return  # somebody else did
    queue_again(study, trial)


def queue_again(study: Study, trial: FrozenTrial) -> None:
    """Put the run of a trial that ended into the queue."""
    import_optuna().storages.RetryHeartbeatStaleTrialCallback()(study, trial)


def frozen_trial(study: Study, trial: Trial) -> FrozenTrial:
    """Return what the storage knows of a trial."""
    return study._storage.get_trial(trial._trial_id)


def interruptions(trial: FrozenTrial) -> int:
    """Return how often the run of a trial was put back before."""
    history: List[int] = trial.system_attrs.get("retry_history", [])
    return len(history)


def _age(trial: FrozenTrial) -> float:
    return time.time() - trial.datetime_start.timestamp() if trial.datetime_start else 0.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process that sees the folder plan or take up runs meanwhile.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"{folder}: cannot be used: {error.strerror}") from error
    with file:
        # A file system may have no locks; what is queued twice is noticed at its start.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
