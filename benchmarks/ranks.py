"""Ranks: several `caffe train` over MPI, beside one process and beside the limit.

Each round trains LeNet, with the same number of images an iteration, in turn by

- stock, one process with one BLAS thread;
- stock, one process with as many BLAS threads as there are ranks: what people do today;
- the ranks, each with its share of the batch and one BLAS thread;
- the limit: as many stock processes at once, each with a share of the batch, that do not know of
  each other. No exchange can be faster.

A ratio is the median of the ratios within each round.

    python benchmarks/ranks.py [--ranks N] [--pairs N] [--solver FILE] [--json FILE]
    python benchmarks/ranks.py --model      bytes and times for 2 to 256 ranks, by arithmetic
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence

from machine import describe
from raw_figures import write_figures
from rich.table import Table
from runs import LENET, Length, clock, prepare
from tables import console, median_ratio, print_machine

from caffe_pysgd.hosts.ranks.launch import mpi_command, mpi_environment, with_ranks, write_ranks
from caffe_pysgd.hosts.ranks.sources import own_records
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe

LENGTH = Length(20, 200)

# Learnable values, in millions.
NETS = {"LeNet": 0.431, "ResNet-50": 25.6, "AlexNet": 61.0, "VGG-16": 138.4}
GBITS = (10, 100)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--solver", type=Path, default=LENET)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    parser.add_argument("--model", action="store_true", help="print what other networks would take")
    arguments = parser.parse_args()
    if arguments.model:
        print_model()
        return
    machine = describe()
    print_machine(machine)
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        seconds = measure(arguments.solver, arguments.ranks, arguments.pairs, Path(folder))
    print_measured(seconds, arguments.ranks)
    write_figures(arguments.json, {"machine": machine, "ranks": arguments.ranks, **seconds})


def measure(source: Path, ranks: int, pairs: int, folder: Path) -> Dict[str, List[float]]:
    """Return the seconds of the measured iterations, round by round, by contestant."""
    run = with_batch(prepare(source, LENGTH), "total")
    stock = run.write_stock(folder / "stock")
    share = own_records(run, 0, ranks).write_stock(folder / "share")
    injected = write_ranks(with_ranks(run, ranks), folder / "ranks", False, None)
    caffe = str(pycaffe.binary())
    contestants = {
        "one thread": [(1, [caffe, "train", f"--solver={stock}"])],
        f"{ranks} threads": [(ranks, [caffe, "train", f"--solver={stock}"])],
        f"{ranks} ranks": [(1, mpi_command(Path(caffe), injected, [], 1))],
        "limit": [(1, [caffe, "train", f"--solver={share}"])] * ranks,
    }
    seconds: Dict[str, List[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(pairs + 1):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            took = together(contestants[name], folder)
            if number:  # the first brings files into the page cache
                seconds[name].append(round(took, 4))
    return seconds


def with_batch(run: Run, batch: str) -> Run:
    """Return the run with its batch for all ranks together, or for each."""
    return run.configured(ranks=run.configuration.ranks.model_copy(update={"batch": batch}))


def together(commands: Sequence[Any], folder: Path) -> float:
    """Run commands at once; return the seconds of the measured iterations, of the slowest."""
    logs = [folder / f"{number}.log" for number in range(len(commands))]
    processes = []
    for (threads, command), path in zip(commands, logs):
        own = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        own.update(GLOG_logtostderr="1", GLOG_minloglevel="0")
        environment = mpi_environment({**pycaffe.binary_environment(), **own})
        with path.open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))
    for process in processes:
        process.wait()
    return max(seconds_in(path.read_text(errors="replace")) for path in logs)


def seconds_in(log: str) -> float:
    warm, done = (clock(log, line, 2000) for line in (LENGTH.warm_up, sum(LENGTH)))
    return (done - warm).total_seconds()


def print_measured(seconds: Dict[str, List[float]], ranks: int) -> None:
    """Print what was measured."""
    table = Table(title=f"LeNet, the same images an iteration, {os.cpu_count()} cores")
    base = ("times one thread", f"times {ranks} threads", "of the limit")
    for column in ("", "ms per iteration", *base):
        table.add_column(column, justify="right" if column else "left")
    one, many, limit = (seconds[name] for name in ("one thread", f"{ranks} threads", "limit"))
    for name, its in seconds.items():
        table.add_row(
            name,
            f"{1000 * statistics.median(its) / LENGTH.measured:.1f}",
            *(f"{median_ratio(base, its):.2f}" for base in (one, many, limit)),
        )
    console().print(table)


def print_model() -> None:
    """Print what the exchange takes for some nets, by arithmetic."""
    table = Table(title="MB that each rank sends an iteration, and ms at the speed of the network")
    for column in ("net", "ranks", "MB", *(f"ms at {gbit} Gbit/s" for gbit in GBITS)):
        table.add_column(column, justify="left" if column == "net" else "right")
    for net, millions in NETS.items():
        for ranks in (2, 4, 16, 64, 256):
            megabytes = bytes_sent(millions, ranks)
            times = [f"{8 * megabytes / gbit:.1f}" for gbit in GBITS]
            table.add_row(net, str(ranks), f"{megabytes:.1f}", *times)
    console().print(table)


def bytes_sent(millions: float, ranks: int) -> float:
    """Return how many MB a rank sends, and as many it gets, in one iteration."""
    return 4 * millions * 2 * (ranks - 1) / ranks


if __name__ == "__main__":
    main()
