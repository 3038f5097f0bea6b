"""Whole runs: stock `caffe train`, and this project's three hosts, in turn.

Each round trains the same solver file in every host and takes the time between two lines of the
log, some iterations apart, after some of warming up. Start-up (from the start of the process to the
first iteration) is told apart. A ratio is the median of the ratios within each round.

- lenet: the example, SGD; needs the MNIST LMDBs (`make data`).
- alexnet: BVLC's AlexNet from its fully connected layers on, 58.6 million values, Adam, data that
  is made up.

    python benchmarks/runs.py [--nets lenet] [--hosts in-net solve] [--pairs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from machine import describe
from nets import alexnet, write_net
from raw_figures import write_figures
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from tables import console, in_millions, median_ratio, print_machine

from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock import pycaffe

LENET = Path("examples/mnist/lenet_solver.prototxt")
STAMP = r"^I(?:\d{4})?(\d{4} [\d:.]+) .*\] "  # from glog 0.5 on with the year
STOCK, HOSTS = "stock", ("in-net", "hook", "solve")
HOOK = "import sys, caffe_pysgd; caffe_pysgd.take_over(sys.argv[1]).solve()"

ALEXNET_SOLVER = """
base_lr: 0.0001 lr_policy: "fixed" max_iter: 1 weight_decay: 0.0005 random_seed: 1
type: "Adam" momentum: 0.9 momentum2: 0.999 delta: 1e-8
"""


class Length(NamedTuple):
    """How many iterations are not measured, and how many are, a multiple of those."""

    warm_up: int
    measured: int


LENGTHS = {"lenet": Length(20, 200), "alexnet": Length(10, 20)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=list(HOSTS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="of alexnet")
    parser.add_argument("--shrink", type=int, default=1, help="alexnet's layers, for a try")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    arguments = parser.parse_args()
    result: Dict[str, Any] = {"machine": describe(), "nets": {}}
    print_machine(result["machine"])
    for net in arguments.nets:
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
            source = LENET
            if net == "alexnet":
                source = write_alexnet(Path(folder), arguments.batch, arguments.shrink)
            run = prepare(source, LENGTHS[net])
            hosts = [STOCK, *arguments.hosts]
            result["nets"][net] = measure(run, net, hosts, arguments.pairs, Path(folder))
        print_net(net, result["nets"][net])
        write_figures(arguments.json, result)


def write_alexnet(folder: Path, batch: int, shrink: int) -> Path:
    """Write net and solver; return the solver file."""
    net, solver = folder / "alexnet.prototxt", folder / "alexnet_solver.prototxt"
    write_net(net, alexnet(batch, shrink))
    solver.write_text(f'net: "{net}"\nsnapshot_prefix: "{folder}/alexnet"\n{ALEXNET_SOLVER}')
    return solver


def prepare(solver_file: Path, length: Length) -> Run:
    """Return the run, with nothing in it but training and a log line now and then."""
    run = resolve(solver_file, iterations=sum(length) + 1)
    nothing = {"test_iter": [], "test_state": [], "test_interval": 0, "snapshot": 0}
    return run.with_solver(**nothing, snapshot_after_train=False, display=length.warm_up)


def measure(run: Run, net: str, hosts: List[str], pairs: int, folder: Path) -> Dict[str, Any]:
    """Return the seconds of start-up and of the iterations, by host."""
    solvers = {host: run.write_stock(folder / host) for host in hosts if host != "in-net"}
    if "in-net" in hosts:
        solvers["in-net"] = write_injected(run, folder / "in-net")
    start_up: Dict[str, List[float]] = {host: [] for host in hosts}
    seconds: Dict[str, List[float]] = {host: [] for host in hosts}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=len(hosts) * (pairs + 1))
        for number in range(pairs + 1):
            start = number % len(hosts)
            for host in hosts[start:] + hosts[:start]:
                progress.update(task, description=f"{net}, {host}")
                ready, took = train(host, solvers[host], LENGTHS[net])
                progress.advance(task)
                if number:  # the first brings files into the page cache
                    start_up[host].append(round(ready, 4))
                    seconds[host].append(round(took, 4))
    values = sum(p.count for p in run.settings().parameters)
    told = {"values": values, "rule": run.rule, "iterations": LENGTHS[net].measured}
    return {**told, "start_up": start_up, "seconds": seconds}


def command(host: str, solver: Path) -> List[str]:
    """Return what trains a solver file."""
    if host == "solve":
        run_dir = f"--run-dir={solver.parent.parent / 'solve run'}"
        return [sys.executable, "-m", "caffe_pysgd", "solve", str(solver), run_dir]
    if host == "hook":
        return [sys.executable, "-c", HOOK, str(solver)]
    return [str(pycaffe.binary()), "train", f"--solver={solver}"]


def train(host: str, solver: Path, length: Length) -> tuple[float, float]:
    """Train; return the seconds of start-up and of the measured iterations by the log's clock."""
    began = datetime.now()
    process = subprocess.run(
        command(host, solver),
        env={**pycaffe.binary_environment(), "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        sys.exit(f"{host}: {pycaffe.failure_reason(process.stderr)}")
    lines = (0, length.warm_up, sum(length))
    ready, warm, done = (clock(process.stderr, line, began.year) for line in lines)
    return (ready - began).total_seconds(), (done - warm).total_seconds()


def clock(log: str, iteration: int, year: int) -> datetime:
    """Return when Caffe displayed an iteration."""
    stamp = re.search(rf"{STAMP}Iteration {iteration} \(", log, re.MULTILINE)
    assert stamp, f"no iteration {iteration} in Caffe's log"
    return datetime.strptime(f"{year}{stamp[1]}", "%Y%m%d %H:%M:%S.%f")


def print_net(net: str, measured: Dict[str, Any]) -> None:
    """Print what was measured with one net."""
    seconds, start_up = measured["seconds"], measured["start_up"]
    values = in_millions(measured["values"])
    table = Table(title=f"{net}, {measured['rule']}, {values}: whole runs")
    for column in ("host", "ms per iteration", "times faster", "start-up, s"):
        table.add_column(column, justify="left" if column == "host" else "right")
    for host in seconds:
        table.add_row(
            host,
            f"{1000 * statistics.median(seconds[host]) / measured['iterations']:.1f}",
            f"{median_ratio(seconds[STOCK], seconds[host]):.3f}",
            f"{statistics.median(start_up[host]):.2f}",
        )
    console().print(table)


if __name__ == "__main__":
    main()
