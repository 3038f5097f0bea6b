"""LeNet on MNIST, trained twice by the unmodified `caffe train`: natively, and by Python.

`make demo` runs it from the project's folder, which the paths in the prototxt files start from.
The runs stay in runs/demo: solver, net, Caffe's log and the snapshots of each; and of Python's the
record of all that the update did, and a page that shows it.
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_pysgd.cli.progress import TrainingBar, training_bars
from caffe_pysgd.files import write_files
from caffe_pysgd.proof.verify import (
    compare_history,
    compare_weights,
    prepare,
    train_in_net,
    train_stock,
    verdict,
)
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.views.report import write_report

RUN = Path("examples/mnist/lenet.yaml")
RUNS = Path("runs/demo")


def main() -> None:
    """Train, compare, tell."""
    console = Console()
    run = prepare(resolve(RUN))
    iterations = run.solver.max_iter
    console.print(f"LeNet on MNIST, {iterations} iterations of stock `caffe train`, twice:")
    outcomes = []
    with training_bars() as bars:
        for name, train in (("native", train_stock), ("python", train_in_net)):
            bar = TrainingBar(bars, f"update: {name}", iterations)
            outcomes.append(train(run, RUNS / name, [], bar.reach))
            bar.finish()
    native, python = outcomes
    (said,) = (line for line in python.log.splitlines() if "Python owns" in line)
    console.print(f"\nCaffe's own log: {said.split('] ', 1)[1]}", soft_wrap=True)
    table = Table("test of the trained net", "native update", "Python's update")
    for output in native.scores:
        table.add_row(output, f"{native.scores[output]:g}", f"{python.scores[output]:g}")
    console.print(table)
    weights = compare_weights(run, native, python)
    differ, count = (sum(getattr(w, field) for w in weights) for field in ("differ", "count"))
    console.print(f"{differ:,} of {count:,} weights differ.", style="bold", highlight=False)
    found = verdict(weights, compare_history(run, native, python), iterations)
    write_files({RUNS / "python" / "verify.json": json.dumps(found) + "\n"})
    page = write_report([RUNS / "python"], None, check=True)
    console.print(f"What the solver did, to look at in a browser: {page}", soft_wrap=True)
    console.print("The next thing to type: .venv/bin/caffe-pysgd --help")


if __name__ == "__main__":
    main()
