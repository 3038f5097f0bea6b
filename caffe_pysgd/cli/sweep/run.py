"""``caffe-pysgd sweep SWEEP.yaml``: start a sweep, go on with one, or help another machine."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import click

from caffe_pysgd.cli.options import WholeNumber, no_user_code_option

if TYPE_CHECKING:
    from rich.console import Console

    from caffe_pysgd.experiments.runner import Runner
    from caffe_pysgd.experiments.sweep_file import Sweep

_FRAME_SECONDS = 1.0


@click.command()
@click.argument("source", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@click.option("--jobs", metavar="N", type=WholeNumber(1, 1024), default=1, show_default=True,
              help="How many runs to train at once; each gets its share of the cores.")  # fmt: skip
@click.option("--dry-run", is_flag=True,
              help="List the runs, and estimate time and disk from a few iterations.")  # fmt: skip
@no_user_code_option
def run(source: Path, jobs: int, dry_run: bool) -> None:
    """Train the runs of SWEEP.yaml, N at once, and rank them.

    Typed again, it goes on: runs that ended are kept, and the others go on from their newest
    snapshots. Typed on another machine too, the two share the work. Ctrl-C loses no more than what
    was trained since the last snapshots.
    """
    from rich.console import Console

    from caffe_pysgd.experiments.comparison import write_comparison
    from caffe_pysgd.experiments.results import results, write_csv
    from caffe_pysgd.experiments.runner import Runner
    from caffe_pysgd.experiments.screen import ranked_table
    from caffe_pysgd.experiments.study import open_study
    from caffe_pysgd.experiments.sweep_file import read_sweep

    sweep = read_sweep(source)
    if dry_run:
        _show_plan(sweep, jobs)
        return
    study = open_study(sweep)
    console = Console(stderr=True)
    runner = Runner(sweep, study, jobs, _quiet if console.is_terminal else _say)
    with _stopped_by_signals(runner):
        runner.start()
        _follow(sweep, study, runner, console)
    runs = results(sweep, study)
    Console().print(ranked_table(sweep, runs))
    for one in runs:
        if one.reason:
            click.echo(f"failed: {one.name}: {one.reason}")
    click.echo(write_csv(sweep, runs))
    click.echo(write_comparison(sweep, study))
    if runner.is_stopping:
        click.echo("caffe-pysgd: interrupted; the same command goes on", err=True)
        sys.exit(130)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _quiet(line: str) -> None:
    """Say nothing: the table shows it."""


@contextmanager
def _stopped_by_signals(runner: Runner) -> Iterator[None]:
    """Stop at Ctrl-C and SIGTERM; at once at the second."""

    def stop(number: int, frame: Any) -> None:
        if runner.is_stopping:
            os._exit(130)  # the runs end with this process
        runner.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:
        runner.stop()
        raise
    finally:
        runner.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(sweep: Sweep, study: Any, runner: Runner, console: Console) -> None:
    """Wait for the end of the sweep; on a terminal, show it meanwhile."""
    from rich.live import Live

    from caffe_pysgd.experiments.results import results
    from caffe_pysgd.experiments.screen import live_table

    with ExitStack() as stack:
        live = None
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        while not runner.wait(_FRAME_SECONDS):
            if live:
                runs = results(sweep, study)
                frame = live_table(sweep, runs, dict(runner.now), console.height)
                live.update(frame, refresh=True)


def _show_plan(sweep: Sweep, jobs: int) -> None:
    from caffe_pysgd.experiments.estimate import estimate
    from caffe_pysgd.experiments.runner import RUNS
    from caffe_pysgd.experiments.study import planned_runs

    count = sweep.options.budget.runs or 0
    if sweep.is_planned:
        names = [attributes["run"] for attributes, _ in planned_runs(sweep)]
        count = len(names)
        for name in names:
            click.echo(sweep.directory / RUNS / name)
    else:
        click.echo(f"{sweep.directory / RUNS}: {count or 'any number of'} runs, as Optuna chooses")
    click.echo(estimate(sweep, count, jobs))
