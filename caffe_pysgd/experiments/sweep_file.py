"""The YAML of a sweep: what it may say, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

from pydantic import Field, StrictInt, ValidationError
from typing_extensions import Annotated

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.experiments.space import (
    Dimension,
    Point,
    Values,
    examples,
    grid,
    parse_space,
    varied,
    zipped,
)
from caffe_pysgd.run.configuration import Count, Strict, check_content, explained
from caffe_pysgd.run.overrides import PATHS, put, read_merged
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.yaml_file import read_yaml
from caffe_pysgd.stock.solver_file import read_solver
from caffe_pysgd.update import find_rule

HOSTS = ("in-net", "solve", "native")
HOST, SEED = "host", "solver.random_seed"
_LONGEST_NAME = 150

# What the sweep gives each run.
_OWN = (
    "run_dir", "snapshots.prefix", "solver_overrides.snapshot_prefix", "solver.snapshot_prefix",
)  # fmt: skip

Positive = Annotated[Count, Field(ge=1)]


class ObjectiveOptions(Strict):
    """What makes one run better than another."""

    score: Optional[str] = None
    loss: Optional[Literal["smoothed", "raw"]] = None
    net: Count = 0
    take: Literal["best", "last", "mean"] = "best"
    of_last: Positive = 5
    goal: Optional[Literal["max", "min"]] = None

    @property
    def maximized(self) -> bool:
        """Whether more is better: so unless it is a loss, or an error."""
        loss = self.score is None or re.search("loss|error", self.score.lower())
        return not loss if self.goal is None else self.goal == "max"


class BudgetOptions(Strict):
    """When no more runs are started."""

    runs: Optional[Positive] = None
    hours: Optional[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = None


class PrunerOptions(Strict):
    """When a run that is worse than others ends early."""

    kind: Literal["median", "halving"] = "median"
    startup_runs: Count = 4
    warmup: Count = 0


class SweepOptions(Strict):
    """A sweep: a base run, what is varied, and how the best is found."""

    base: Path = Field(strict=False)
    sweep_dir: Optional[Path] = Field(default=None, strict=False)
    name: Optional[str] = None
    host: Literal["in-net", "solve", "native"] = "in-net"
    method: Literal["grid", "zip", "random", "tpe"] = "grid"
    space: Dict[str, Any]
    seeds: Optional[Union[Positive, List[Annotated[StrictInt, Field(ge=0, lt=2**31)]]]] = None
    objective: ObjectiveOptions
    budget: BudgetOptions = BudgetOptions()
    pruner: Optional[PrunerOptions] = None
    storage: str = "sqlite"


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked.

    Attributes:
        source: its YAML.
        options: what that says.
        directory: where its runs and tables go.
        content: the base run's, merged, paths relative to the working directory.
        space: what is varied.
        seeds: one run of each combination for each of them.
        max_iter, tests, snapshots: of the base run: its length, and how often it is tested and
            takes a snapshot on the way.
    """

    source: Path
    options: SweepOptions
    directory: Path
    content: Dict[str, Any]
    space: Tuple[Dimension, ...]
    seeds: Tuple[int, ...]
    max_iter: int
    tests: int
    snapshots: int

    @property
    def name(self) -> str:
        """The study's name in its storage."""
        return self.options.name or self.source.stem

    @property
    def is_planned(self) -> bool:
        """Whether all runs are known before the first."""
        return self.options.method in ("grid", "zip")

    def points(self) -> List[Point]:
        """Return the combinations of a grid or a zip, as many as the budget allows.

        Raises:
            UserError: a range in a grid does not say how many values it has.
        """
        try:
            points = (grid if self.options.method == "grid" else zipped)(self.space)
        except UserError as error:
            raise UserError(f"{self.source}: {error}") from error
        runs = self.options.budget.runs
        return points if runs is None else points[: -(-runs // len(self.seeds))]

    def host_of(self, values: Values) -> str:
        """Return the host of a run with these values."""
        return str(values.get(HOST, self.options.host))

    def varied(self) -> List[str]:
        """Return the keys by which runs differ, the seed apart."""
        return [key for key in varied(self.space) if key != SEED]

    def run_content(self, values: Values) -> Dict[str, Any]:
        """Return what the YAML of a run with these values says.

        Raises:
            UserError: a key leads nowhere.
        """
        content = dict(self.content)
        for key, value in values.items():
            if key != HOST:
                put(content, key, value, f"{self.source}: space.")
        content.setdefault("module_path", str(self.source.parent))
        if isinstance(content.get("audit"), dict):  # it is read where it is by default
            content["audit"] = {k: v for k, v in content["audit"].items() if k != "file"}
        if isinstance(content.setdefault("update", {}), dict):
            # A run that diverged is over.
            content["update"] = {"on_nonfinite": "stop", **content["update"]}
        return content

    def run_name(self, values: Values, number: Optional[int] = None) -> str:
        """Return the name of the folder of a run: what it differs by, and a number if given."""
        keys = [*self.varied(), *([SEED] if len(self.seeds) > 1 else [])]
        short = short_names(keys)
        parts = [f"{short[key]}={_plain(values[key])}" for key in keys if key in values]
        name = re.sub(r"[^\w.+=,-]+", "-", ",".join(parts)).strip("-") or "run"
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return name if number is None else f"{number:04d}-{name}"

    def fingerprint(self) -> Dict[str, Any]:
        """Return what must stay as it is while the sweep is gone on with."""
        options = self.options.model_dump(mode="json")
        # However the YAML is named, its paths are the same from the sweep's folder.
        paths = {key: self.content[key] for key in PATHS if self.content.get(key)}
        base = {
            **self.content,
            **{key: os.path.relpath(path, self.directory) for key, path in paths.items()},
        }
        kept = {name: options[name] for name in ("method", "host", "space", "objective")}
        plain = json.loads(json.dumps({**kept, "base": base, "seeds": self.seeds}))
        assert isinstance(plain, dict)
        return plain


def threads(jobs: int) -> int:
    """Return how many cores each of so many runs at once has."""
    return max(1, len(os.sched_getaffinity(0)) // jobs)


def short_names(keys: List[str]) -> Dict[str, str]:
    """Return the last part of each key, or all of it where two would be the same."""
    last = [("seed" if key == SEED else key.rpartition(".")[2]) for key in keys]
    return {k: name if last.count(name) == 1 else k for k, name in zip(keys, last)}


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_sweep(source: Path) -> Sweep:
    """Return the sweep in a YAML; its keys and their values are checked against the base run.

    Raises:
        UserError: something in it is not allowed, or the base run cannot be trained.
    """
    content = read_yaml(source)
    try:
        options = SweepOptions.model_validate(content)
    except ValidationError as error:
        raise explained(source, error, SweepOptions) from error
    base = source.parent / options.base
    if not os.path.isfile(base):
        expected = "a YAML or a solver file, relative to this one"
        raise SettingError("base", str(options.base), expected, where=source)
    folder = str(options.sweep_dir or Path("runs", source.stem))
    directory = source.parent / folder if options.sweep_dir else Path(folder)
    directory = Path(os.path.normpath(directory))  # it names the runs in all that is printed
    try:
        space = parse_space(options.space)
    except SettingError as error:
        raise error.at(source) from error
    run = resolve(base)
    solver, seeds = run.solver, _seeds(options, run)
    counts = [
        solver.max_iter // every if every else 1
        for every in (solver.test_interval, solver.snapshot)
    ]
    content = read_merged(base)
    sweep = Sweep(source, options, directory, content, space, seeds, solver.max_iter, *counts)
    _check_keys(sweep)
    _check_objective(sweep, run)
    if sweep.is_planned:
        sweep.points()
    elif options.budget == BudgetOptions():
        needed = f"budget: {options.method} goes on for ever; say how many runs, or hours"
        raise UserError(f"{source}: {needed}")
    return sweep


def _seeds(options: SweepOptions, run: Any) -> Tuple[int, ...]:
    if isinstance(options.seeds, list):
        return tuple(dict.fromkeys(options.seeds)) or (1,)
    if options.seeds is None:
        return (run.solver.random_seed,) if run.solver.random_seed >= 0 else (1,)
    return tuple(range(1, options.seeds + 1))


def _check_keys(sweep: Sweep) -> None:
    """Check each value of each key by itself: combinations may be refused as runs."""
    where = Path(f"{sweep.source}: space")  # a name for the errors, in the sweep's folder
    for key, value in examples(sweep.space):
        if key == HOST:
            if value not in HOSTS:
                raise SettingError(HOST, value, one_of(HOSTS, str(value)), where=where)
            continue
        content = sweep.run_content({key: value})
        content.pop("run_dir", None)
        configuration = check_content(content, where)
        if key.startswith(("solver.", "solver_overrides.")):
            overrides = configuration.solver_overrides
            read_solver(configuration.solver, overrides, f"{where}: solver_overrides")
        if key == "update.rule" and ":" not in value:
            try:
                find_rule(value)
            except SettingError as error:
                raise error.at(where, "update") from error
    for key in varied(sweep.space):
        if key in _OWN:
            raise UserError(f"{where}: {key}: each run has its own, which the sweep gives it")
        if key == SEED:
            raise UserError(f"{where}: {key}: is varied by 'seeds'")


def _check_objective(sweep: Sweep, run: Any) -> None:
    objective = sweep.options.objective
    if (objective.score is None) is (objective.loss is None):
        raise UserError(
            f"{sweep.source}: objective: expected either score, an output of the test net, or "
            "loss: smoothed or raw"
        )
    tests = run.solver.test_interval and (run.solver.test_iter or "test_iter" in str(sweep.space))
    if objective.score and not tests:
        raise UserError(
            f"{sweep.source}: objective.score: the base run is never tested; its solver needs "
            "test_iter and test_interval"
        )


def storage_url(storage: str, directory: Path) -> str:
    """Return the URL of a storage, environment variables in it replaced.

    ``sqlite`` is a file in the sweep's folder; ``journal`` stands for itself.
    """
    if storage == "sqlite":
        return f"sqlite:///{directory.absolute() / 'study.sqlite'}"
    return os.path.expandvars(storage)
