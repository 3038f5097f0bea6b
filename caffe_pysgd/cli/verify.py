"""``caffe-pysgd verify``: stock against Python, to the last bit."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import click

from caffe_pysgd.cli.options import (
    count_of,
    iterations_option,
    json_option,
    net_state_flags,
    net_state_options,
    no_user_code_option,
    ranks_option,
    set_options,
    source_argument,
    stages_of,
)
from caffe_pysgd.cli.progress import TrainingBar, training_bars
from caffe_pysgd.errors import UserError

if TYPE_CHECKING:
    from caffe_pysgd.proof.verify import Outcome
    from caffe_pysgd.run.run import Run
    from caffe_pysgd.update.bits import Comparison


@click.command()
@source_argument
@iterations_option
@click.option("--host", type=click.Choice(["in-net", "hook", "solver"]), default="in-net",
              show_default=True, help="Where Python's update runs.")  # fmt: skip
@json_option("Also write the comparison, parameter by parameter, as JSON.")
@ranks_option("Compare two runs of N processes over MPI, and one process with all their batches.")
@set_options
@net_state_options
@no_user_code_option
def verify(
    source: Path,
    iterations: Optional[int],
    host: str,
    json_path: Optional[Path],
    ranks: Optional[str],
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Train X twice, by the native solver and in Python, and count the values that differ.

    Compares every weight and every value of the history after the last iteration, bit by bit.
    What a YAML overrides applies to both runs. Everything is written to a temporary directory and
    removed. Exit code 0 only if nothing differs, else 1.
    """
    from caffe_pysgd.files import write_json
    from caffe_pysgd.proof.verify import (
        HOSTS,
        compare_history,
        compare_weights,
        prepare,
        repeatable,
        train_stock,
        verdict,
    )
    from caffe_pysgd.run.resolve import resolve
    from caffe_pysgd.stock import pycaffe

    run = resolve(source, iterations, level, stages_of(stage), changes)
    if run.solver.max_iter < 1:
        raise UserError(f"{source}: max_iter is 0: nothing would be compared; give --iterations N")
    flags = net_state_flags(level, stage)
    if ranks:
        sys.exit(_verify_ranks(repeatable(run), count_of(ranks, run), flags, json_path))
    run = prepare(run)
    if host == "in-net":
        pycaffe.binary()  # before anything is trained
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder, training_bars() as bars:
        outcomes = []
        for name, train in (("stock", train_stock), (host, HOSTS[host])):
            bar = TrainingBar(bars, f"training, {name}", run.solver.max_iter)
            outcomes.append(train(run, Path(folder, name), flags, bar.reach))
            bar.finish()
    weights = compare_weights(run, *outcomes)
    history = compare_history(run, *outcomes)
    _report_scores(*outcomes)
    differ = _report(weights, history, run.solver.max_iter)
    if json_path:
        found = verdict(weights, history, run.solver.max_iter)
        write_json(json_path, found)
    sys.exit(1 if differ else 0)


def _verify_ranks(run: Run, count: int, flags: Sequence[str], json_path: Optional[Path]) -> int:
    """Compare two runs of several ranks to the bit, and one process; return the exit code."""
    from caffe_pysgd.files import write_json
    from caffe_pysgd.proof.verify import compare_history, compare_weights, verdict
    from caffe_pysgd.proof.verify_ranks import TOLERANCE, nearness, train_alone, train_ranks

    last = run.solver.max_iter
    names = (f"{count} ranks", f"{count} ranks again", "one process")
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder, training_bars() as bars:
        outcomes = []
        for name, train in zip(names, (train_ranks, train_ranks, train_alone)):
            bar = TrainingBar(bars, f"training, {name}", last)
            outcomes.append(train(run, count, Path(folder, name), flags, bar.reach))
            bar.finish()
    first, again, alone = outcomes
    near = nearness(run, first, alone)
    for part in near:
        if part.relative > TOLERANCE:
            click.echo(f"{part.name}: {part.relative:.1e} of the largest weight off one process")
    furthest = max(near, key=lambda part: part.relative)
    click.echo(
        f"one process: {furthest.relative:.1e} of the largest weight off at most, in "
        f"{furthest.name}; up to {TOLERANCE:g} is taken for the rounding of sums in another order"
    )
    weights, history = compare_weights(run, first, again), compare_history(run, first, again)
    differ = _report(weights, history, last)
    if json_path:
        one = [part._asdict() for part in near]
        write_json(json_path, {**verdict(weights, history, last), "one_process": one})
    return 1 if differ or furthest.relative > TOLERANCE else 0


def _report_scores(stock: Outcome, ours: Outcome) -> None:
    for output, score in stock.scores.items():
        click.echo(f"test net {output} = {score:g} stock, {ours.scores[output]:g} Python")


def _report(weights: List[Comparison], history: List[Comparison], iterations: int) -> int:
    from caffe_pysgd.proof.verify import verdict

    for part in (*weights, *history):
        if part.differ:
            click.echo(str(part))
    for name, parts in (("weights", weights), ("history", history)):
        found = verdict(parts, [], iterations)
        click.echo(f"{name}: {found['differ']:,} of {found['values']:,} differ")
    found = verdict(weights, history, iterations)
    click.echo(
        f"verify: {found['differ']} of {found['values']} values differ, "
        f"max {found['max_ulp']} ulp, after {iterations} iterations"
    )
    differ_in_all: int = found["differ"]
    return differ_in_all
