"""LeNet on MNIST, trained twice by the unmodified `caffe train`: natively, and by Python.

`make demo` runs it from the project's folder, which the paths in the prototxt files start from.
The runs stay in runs/demo: solver, net, Caffe's log and the snapshots of each.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from caffe_pysgd.cli.progress import TrainingBar, training_bars
from caffe_pysgd.run import resolve
from caffe_pysgd.verification import compare_weights, prepare, train_in_net, train_stock

SOLVER = Path("examples/mnist/lenet_solver.prototxt")
RUNS = Path("runs/demo")


def main() -> None:
    """Train, compare, tell."""
    console = Console()
    run = resolve(SOLVER)
    prepare(run)
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
    console.print(f"The runs are in {RUNS}/; the next thing to type: .venv/bin/caffe-pysgd --help")


if __name__ == "__main__":
    main()
