"""``caffe-pysgd diagnose``: why does a hand-written loop not match?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Optional, Tuple

import click

from caffe_pysgd.cli.options import (
    WholeNumber,
    json_option,
    net_state_options,
    set_options,
    source_argument,
    stages_of,
)
from caffe_pysgd.cli.progress import TrainingBar, training_bars
from caffe_pysgd.files import write_json


@click.command()
@source_argument
@click.option("--step", "named", metavar="FILE.py:FUNCTION", required=True,
              help="The function that does one iteration by hand: step(solver).")  # fmt: skip
@click.option("--iterations", metavar="N", type=WholeNumber(1), default=5, show_default=True,
              help="How many iterations to compare.")  # fmt: skip
@json_option("Also write the verdict as JSON.")
@set_options
@net_state_options
def diagnose(
    source: Path,
    named: str,
    iterations: int,
    json_path: Optional[Path],
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Say why a hand-written update of X does not match the native solver's.

    The function does one iteration, forward, backward and update, on the pycaffe solver that it is
    given: step(solver), step(net) or step(solver, iteration); or it is a generator and yields after
    each. The native solver runs on the same data from the same weights. Exit code 0 if the loop is
    exact or off by nothing but rounding, 1 if something is different.
    """
    from caffe_pysgd.proof.diagnose.diagnose import diagnose as find
    from caffe_pysgd.proof.diagnose.steps import load_step
    from caffe_pysgd.run.resolve import resolve

    os.environ.setdefault("GLOG_minloglevel", "2")  # before Caffe is loaded: no log
    step = load_step(named)
    run = resolve(source, level=level, stages=stages_of(stage), settings=changes)
    with training_bars() as bars:
        bar = TrainingBar(bars, "diagnose", 3 * iterations)  # native, by hand, and a check
        done = iter(range(1, 3 * iterations + 1))
        verdict = find(run, step, iterations, lambda: bar.reach(next(done)))
        bar.finish()
    click.echo(str(verdict))
    if json_path:
        write_json(json_path, verdict.as_plain())
    sys.exit(0 if verdict.ok else 1)
