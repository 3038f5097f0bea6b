"""What several commands take: the file, the iterations, the net's level and stages."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple

import click

from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.user_code import NO_USER_CODE

if TYPE_CHECKING:
    from caffe_pysgd.run.run import Run

_INT32 = 2**31 - 1  # what Caffe counts in an int
_MOST_RANKS = 4096


class _Range:
    """What a range adds to a kind of number: it is told in words, in help and in a mistake."""

    min: Any
    max: Any

    def __str__(self) -> str:
        bounds = self._describe_range()
        return f"a {self.name}{f', {bounds}' if bounds else ''}"  # type: ignore[attr-defined]

    def _describe_range(self) -> str:
        """Return the range as click shows it behind an option's help."""
        if self.max not in (None, _INT32):
            return f"{self.min} to {self.max}"
        return "" if self.min in (None, -_INT32) else f"{self.min} or more"

    def convert(
        self, value: Any, parameter: Optional[click.Parameter], context: Optional[click.Context]
    ) -> Any:
        try:
            return super().convert(value, parameter, context)  # type: ignore[misc]
        except click.BadParameter:
            raise click.BadParameter(f"got {value}; expected {self}", context, parameter) from None


class WholeNumber(_Range, click.IntRange):
    """A whole number, within bounds."""

    name = "whole number"


class Number(_Range, click.FloatRange):
    """A number, within bounds."""

    name = "number"


ITERATION = WholeNumber(0, _INT32)

source_argument = click.argument("source", metavar="X", type=click.Path(path_type=Path))


def source_or_solver(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add X, which may also be given as ``--solver X``, as `caffe train` has it."""

    @functools.wraps(command)
    def checked(source: Optional[Path], solver: Optional[Path], **others: Any) -> Any:
        if source is not None and solver is not None:
            raise UserError("give X or --solver X, not both")
        source = source or solver
        if source is None:
            raise UserError(
                "need a solver definition to train: give X, a solver.prototxt or a YAML"
            )
        if source.suffix == ".prototxt":  # else nobody knows yet what is going to be read
            from caffe_pysgd.stock.reader import prepare_to_read

            prepare_to_read(source, "SolverParameter")
        return command(source=source, **others)

    kind = click.Path(path_type=Path)
    checked = click.option("--solver", metavar="X", type=kind, help="The same as X.")(checked)
    return click.argument("source", metavar="X", required=False, type=kind)(checked)


def _be_quiet(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_QUIET] = True
        os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112 - glog's own name
        os.environ.pop("GLOG_logtostderr", None)


def _be_verbose(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        os.environ.update(GLOG_minloglevel="0", GLOG_logtostderr="1", CAFFE_PYSGD_TRACEBACK="1")


_QUIET = f"{__name__}.quiet"

# Every command has these, and so has what stands before it.
VERBOSITY = (
    click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_be_quiet,
        help="No progress, no log of Caffe's below errors.",
    ),
    click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_be_verbose,
        help="Caffe's whole log, and a traceback for a fault of caffe-pysgd.",
    ),
)


def is_quiet() -> bool:
    """Return whether ``--quiet`` was given."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_QUIET, False)


iterations_option = click.option(
    "--iterations",
    metavar="N",
    type=WholeNumber(1, _INT32),
    help="Train up to iteration N instead of the solver's max_iter.",
)

run_dir_option = click.option(
    "--run-dir",
    metavar="D",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where solver.prototxt and net.prototxt are written.",
)


def set_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--set`` and ``--seed``: what is given in the place of what X says."""

    @functools.wraps(command)
    def checked(changes: Tuple[str, ...], seed: Optional[int], **others: Any) -> Any:
        if seed is not None:
            changes += (f"solver.random_seed={seed}",)
        return command(changes=changes, **others)

    checked = click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(0, _INT32),
        help="The same as --set solver.random_seed=N.",
    )(checked)
    return click.option(
        "--set",
        "changes",
        metavar="KEY=VALUE",
        multiple=True,
        help="A key of the YAML, or solver.FIELD of the solver file, for this run; repeatable.",
    )(checked)


def json_option(help: str, metavar: str = "FILE") -> Callable[..., Any]:
    """Return ``--json``, for what a command found, as plain values."""
    kind = click.Path(path_type=Path)
    return click.option("--json", "json_path", metavar=metavar, type=kind, help=help)


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--snapshot`` and ``--weights``, of which one may be given."""

    @functools.wraps(command)
    def checked(snapshot: Optional[str], weights: Optional[str], **others: Any) -> Any:
        if snapshot is not None and weights is not None:
            raise UserError("give --snapshot to resume or --weights to fine-tune, not both")
        if snapshot == "":
            raise SettingError("--snapshot", snapshot, "a .solverstate file")
        models = [] if weights is None else [model.strip() for model in weights.split(",")]
        if not all(models):
            raise SettingError("--weights", weights, ".caffemodel files, separated by commas")
        return command(snapshot=snapshot, weights=models, **others)

    checked = click.option(
        "--weights", metavar="W", help="Start from these .caffemodel weights (W,W,...)."
    )(checked)
    return click.option(
        "--snapshot",
        metavar="S",
        help="Resume from this .solverstate; 'auto': from the run's newest complete one, if any.",
    )(checked)


overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the snapshots of an earlier run, if X is a YAML."
)


def ranks_option(help: str) -> Callable[..., Any]:
    """Return ``--ranks N``."""
    return click.option("--ranks", metavar="N", help=help)


def count_of(ranks: str, run: Run) -> int:
    """Return how many ranks a ``--ranks`` flag asks for.

    Raises:
        UserError: it is no number; the records of the run cannot be dealt out.
    """
    if ranks == "auto":
        from caffe_pysgd.hosts.ranks.sources import most_ranks

        return most_ranks(run, len(os.sched_getaffinity(0)))
    if not ranks.isdigit() or not 0 < int(ranks) <= _MOST_RANKS:
        raise SettingError("--ranks", ranks, f"a number of processes up to {_MOST_RANKS}, or auto")
    return int(ranks)


def net_state_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--level`` and ``--stage``, as `caffe train` has them."""
    command = click.option(
        "--stage", metavar="S,...", default="", help="Net stages, separated by commas."
    )(command)
    return click.option(
        "--level", metavar="N", type=WholeNumber(-_INT32, _INT32), default=0, help="Net level."
    )(command)


def _forbid_user_code(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        os.environ[NO_USER_CODE] = "--no-user-code was given"


no_user_code_option = click.option(
    "--no-user-code",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_forbid_user_code,
    help="Refuse rules and policies of a user's own (module:name) and layers in Python.",
)

allow_user_code_option = click.option(
    "--allow-user-code",
    is_flag=True,
    help="Run the user code of an audit that was not recorded here by you.",
)


def stages_of(stage: str) -> Tuple[str, ...]:
    """Return the stages in a ``--stage`` flag."""
    return tuple(stage.split(",")) if stage else ()


def net_state_flags(level: int, stage: str) -> list[str]:
    """Return the flags that give `caffe train` the same level and stages."""
    flags = [f"--level={level}"] if level else []
    return flags + ([f"--stage={stage}"] if stage else [])
