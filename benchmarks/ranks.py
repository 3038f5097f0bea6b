"""Ranks: several `caffe train` over MPI, beside one process and beside the limit.

Each round trains a net of BVLC's, LeNet or CIFAR-10 full (on noise), with the same number of images
an iteration, in turn by

- stock, one process with one BLAS thread;
- stock, one process with as many BLAS threads as there are ranks: what people do today;
- the ranks, each with its share of the batch and one BLAS thread;
- the limit: as many stock processes at once, each with a share of the batch, that do not know of
  each other. No exchange can be faster.

A ratio is the median of the ratios within each round.

    python benchmarks/ranks.py [--ranks N] [--pairs N] [--nets lenet cifar10_full] [--json FILE]
    python benchmarks/ranks.py --table      1, 2 and 4 ranks, each with 1 and 2 BLAS threads
    python benchmarks/ranks.py --model      bytes and times for 2 to 256 ranks, by arithmetic
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from machine import describe
from nets import cifar10_full, random_images, write_net
from raw_figures import write_figures
from rich.table import Table
from runs import LENET, Length, clock, prepare
from tables import console, median_ratio, print_machine

from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.hosts.ranks.launch import mpi_command, mpi_environment, with_ranks, write_ranks
from caffe_pysgd.hosts.ranks.sources import own_records
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe

LENGTHS = {"lenet": Length(20, 200), "cifar10_full": Length(2, 20)}
TABLE = [(ranks, threads) for ranks in (1, 2, 4) for threads in (1, 2)]

CIFAR_SOLVER = """
base_lr: 0.001 momentum: 0.9 weight_decay: 0.004 lr_policy: "fixed" max_iter: 1 random_seed: 1
"""

# Each a command and how many BLAS threads it has, all at once.
Programs = Dict[str, List[Tuple[int, List[str]]]]

# Learnable values, in millions.
NETS = {"LeNet": 0.431, "ResNet-50": 25.6, "AlexNet": 61.0, "VGG-16": 138.4}
RANKS = 2
GBITS = (10, 100)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=RANKS)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--nets", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--table", action="store_true", help="compare ranks and BLAS threads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    parser.add_argument("--model", action="store_true", help="print what other networks would take")
    arguments = parser.parse_args()
    if arguments.model:
        print_model()
        return
    machine = describe()
    print_machine(machine)
    result: Dict[str, Any] = {"machine": machine, "nets": {}}
    for net in arguments.nets:
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as name:
            folder, length = Path(name), LENGTHS[net]
            source = LENET if net == "lenet" else write_cifar(folder)
            run = with_options(prepare(source, length), batch="total")
            programs = (
                grid(run, folder) if arguments.table else rivals(run, arguments.ranks, folder)
            )
            seconds = measure(programs, arguments.pairs, length, folder)
        result["nets"][net] = seconds
        if arguments.table:
            print_grid(net, seconds, length)
        else:
            print_measured(net, seconds, arguments.ranks, length)
        write_figures(arguments.json, result)


def write_cifar(folder: Path) -> Path:
    """Write net, data and solver; return the solver file."""
    net, solver = folder / "cifar10_full.prototxt", folder / "cifar10_full_solver.prototxt"
    write_net(net, cifar10_full(random_images(folder, 400, 3, 32, 32)))
    solver.write_text(f'net: "{net}"\nsnapshot_prefix: "{folder}/cifar"\n{CIFAR_SOLVER}')
    return solver


def grid(run: Run, folder: Path) -> Programs:
    """Return what trains a run by so many ranks with so many BLAS threads each."""
    programs: Programs = {}
    for ranks, threads in TABLE:
        into = folder / f"{ranks} x {threads}"
        if ranks == 1:
            solver = write_injected(run, into)
            command = [str(pycaffe.binary()), "train", f"--solver={solver}"]
        else:
            solvers = write_ranks(with_ranks(run, ranks), into, False, None)
            command = mpi_command(pycaffe.binary(), solvers, [], threads)
        programs[into.name] = [(threads, command)]
    return programs


def rivals(run: Run, ranks: int, folder: Path) -> Programs:
    """Return the contestants: for each, its processes, with how many BLAS threads."""
    stock = run.write_stock(folder / "stock")
    share = own_records(run, 0, ranks).write_stock(folder / "share")
    injected = write_ranks(with_ranks(run, ranks), folder / "ranks", False, None)
    caffe = str(pycaffe.binary())
    return {
        "one thread": [(1, [caffe, "train", f"--solver={stock}"])],
        f"{ranks} threads": [(ranks, [caffe, "train", f"--solver={stock}"])],
        f"{ranks} ranks": [(1, mpi_command(Path(caffe), injected, [], 1))],
        "limit": [(1, [caffe, "train", f"--solver={share}"])] * ranks,
    }


def measure(programs: Programs, pairs: int, length: Length, folder: Path) -> Dict[str, List[float]]:
    """Return the seconds of the measured iterations, round by round, by program."""
    seconds: Dict[str, List[float]] = {name: [] for name in programs}
    names = list(programs)
    for number in range(pairs + 1):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            took = together(programs[name], folder, length)
            if number:  # the first brings files into the page cache
                seconds[name].append(round(took, 4))
    return seconds


def with_options(run: Run, **options: Any) -> Run:
    """Return the run with other values of the keys of ``ranks``."""
    return run.configured(ranks=run.configuration.ranks.model_copy(update=options))


def together(commands: Sequence[Any], folder: Path, length: Length) -> float:
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
    return max(seconds_in(path.read_text(errors="replace"), length) for path in logs)


def seconds_in(log: str, length: Length) -> float:
    warm, done = (clock(log, line, 2000) for line in (length.warm_up, sum(length)))
    return (done - warm).total_seconds()


def print_grid(net: str, seconds: Dict[str, List[float]], length: Length) -> None:
    """Print the milliseconds of an iteration by ranks and threads."""
    table = Table(title=f"{net}, {os.cpu_count()} cores: ms per iteration, and times 1 x 1")
    for column in ("ranks x BLAS threads", "ms", "times"):
        table.add_column(column, justify="right")
    for name, its in seconds.items():
        ms = 1000 * statistics.median(its) / length.measured
        table.add_row(name, f"{ms:.1f}", f"{median_ratio(seconds['1 x 1'], its):.2f}")
    console().print(table)


def print_measured(net: str, seconds: Dict[str, List[float]], ranks: int, length: Length) -> None:
    """Print what was measured."""
    table = Table(title=f"{net}, the same images an iteration, {os.cpu_count()} cores")
    base = ("times one thread", f"times {ranks} threads", "of the limit")
    for column in ("", "ms per iteration", *base):
        table.add_column(column, justify="right" if column else "left")
    one, many, limit = (seconds[name] for name in ("one thread", f"{ranks} threads", "limit"))
    for name, its in seconds.items():
        table.add_row(
            name,
            f"{1000 * statistics.median(its) / length.measured:.1f}",
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
