"""What Python's update costs a whole `caffe train`: LeNet, stock against in-net, in pairs.

Each pair trains the same solver file twice, in turn, and takes the time between two lines of
Caffe's own log, 400 iterations apart, after 20 iterations of warming up. Start-up (process start to
"Starting Optimization") is told apart. Machines differ and are shared, so the figure is the median
of the pairs' ratios.

    make data
    OPENBLAS_NUM_THREADS=1 .venv/bin/python benchmarks/overhead.py [--pairs N]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from caffe_pysgd import pycaffe
from caffe_pysgd.run import Run, resolve

WARM_UP, MEASURED = 20, 400
STAMP = r"^I(\d{4} [\d:.]+) .*\] "


class Timing(NamedTuple):
    """Seconds of one `caffe train`."""

    start_up: float
    measured: float


def prepare(solver_file: Path) -> Run:
    """Return the run, with nothing in it but training and a log line now and then."""
    run = resolve(solver_file)
    solver = run.solver
    for field in ("test_iter", "test_interval", "test_state", "snapshot"):
        solver.ClearField(field)
    solver.snapshot_after_train = False
    solver.display = WARM_UP
    solver.max_iter = WARM_UP + MEASURED + 1
    return run


def train(solver: Path) -> Timing:
    """Run `caffe train` and read its log's clock."""
    began = datetime.now()
    process = subprocess.run(
        [str(pycaffe.binary()), "train", f"--solver={solver}"],
        env={**pycaffe.binary_environment(), "GLOG_logtostderr": "1"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    ready = clock(process.stderr, "Starting Optimization", began.year)
    warm = clock(process.stderr, rf"Iteration {WARM_UP} \(", began.year)
    done = clock(process.stderr, rf"Iteration {WARM_UP + MEASURED} \(", began.year)
    return Timing((ready - began).total_seconds(), (done - warm).total_seconds())


def clock(log: str, line: str, year: int) -> datetime:
    """Return when Caffe logged a line."""
    stamp = re.search(STAMP + line, log, re.MULTILINE)
    assert stamp, f"no line {line!r} in Caffe's log"
    return datetime.strptime(f"{year}{stamp[1]}", "%Y%m%d %H:%M:%S.%f")


def main() -> None:
    """Measure the pairs, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--solver", type=Path, default=Path("examples/mnist/lenet_solver.prototxt"))
    arguments = parser.parse_args()
    run = prepare(arguments.solver)
    ratios, start_ups = [], []
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "as many as cores")
    print(f"{arguments.solver}: {MEASURED} iterations, OPENBLAS_NUM_THREADS={threads}")
    with tempfile.TemporaryDirectory() as directory:
        stock = run.write_stock(Path(directory, "stock"))
        ours = run.write_injected(Path(directory, "ours"))
        for solver in (stock, ours):  # files into the page cache
            train(solver)
        for pair in range(arguments.pairs):
            first, second = (stock, ours) if pair % 2 else (ours, stock)
            timings = {first: train(first), second: train(second)}
            native, python = timings[stock], timings[ours]
            ratios.append(python.measured / native.measured)
            start_ups.append(python.start_up - native.start_up)
            print(
                f"pair {pair + 1}: stock {native.measured:.2f} s, in-net {python.measured:.2f} s, "
                f"ratio {ratios[-1]:.4f}; start-up {native.start_up:.2f}, {python.start_up:.2f} s",
                flush=True,
            )
    print(
        f"in-net / stock: median {statistics.median(ratios):.4f} "
        f"(min {min(ratios):.4f}, max {max(ratios):.4f}) of {len(ratios)} pairs; "
        f"start-up costs {statistics.median(start_ups):.2f} s more, once"
    )


if __name__ == "__main__":
    main()
