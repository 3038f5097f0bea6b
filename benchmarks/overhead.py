"""What Python's update costs a whole training: LeNet, stock `caffe train` against a host, in pairs.

Each pair trains the same solver file twice, in turn, and takes the time between two lines of the
log, 400 iterations apart, after 20 iterations of warming up. Start-up (process start to the first
iteration) is told apart. Machines differ and are shared, so the figure is the median of the pairs'
ratios.

    make data
    OPENBLAS_NUM_THREADS=1 .venv/bin/python benchmarks/overhead.py [--host solve] [--pairs N]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
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


def command(host: str, solver: Path) -> list[str]:
    """Return what trains a solver file."""
    if host == "solve":
        return [sys.executable, "-m", "caffe_pysgd", "solve", str(solver)]
    return [str(pycaffe.binary()), "train", f"--solver={solver}"]


def train(host: str, solver: Path) -> Timing:
    """Train, and read the log's clock."""
    began = datetime.now()
    process = subprocess.run(
        command(host, solver),
        env={**pycaffe.binary_environment(), "GLOG_logtostderr": "1"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    ready = clock(process.stderr, r"Iteration 0 \(", began.year)
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
    parser.add_argument("--host", choices=["in-net", "solve"], default="in-net")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--solver", type=Path, default=Path("examples/mnist/lenet_solver.prototxt"))
    arguments = parser.parse_args()
    run = prepare(arguments.solver)
    ratios, start_ups = [], []
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "as many as cores")
    print(f"{arguments.solver}: {MEASURED} iterations, OPENBLAS_NUM_THREADS={threads}")
    with tempfile.TemporaryDirectory() as directory:
        stock = run.write_stock(Path(directory, "stock"))
        injected = run.write_injected(Path(directory, "injected"))
        ours = injected if arguments.host == "in-net" else stock
        runners = {"stock": ("stock", stock), arguments.host: (arguments.host, ours)}
        for runner in runners.values():  # files into the page cache
            train(*runner)
        for pair in range(arguments.pairs):
            order = sorted(runners, reverse=bool(pair % 2))
            timings = {name: train(*runners[name]) for name in order}
            native, python = timings["stock"], timings[arguments.host]
            ratios.append(python.measured / native.measured)
            start_ups.append(python.start_up - native.start_up)
            print(
                f"pair {pair + 1}: stock {native.measured:.2f} s, {arguments.host} "
                f"{python.measured:.2f} s, ratio {ratios[-1]:.4f}; "
                f"start-up {native.start_up:.2f}, {python.start_up:.2f} s",
                flush=True,
            )
    print(
        f"{arguments.host} / stock: median {statistics.median(ratios):.4f} "
        f"(min {min(ratios):.4f}, max {max(ratios):.4f}) of {len(ratios)} pairs; "
        f"start-up costs {statistics.median(start_ups):.2f} s more, once"
    )


if __name__ == "__main__":
    main()
