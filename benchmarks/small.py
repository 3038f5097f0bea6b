"""What a small net pays for an update in Python: per parameter blob, and once at start.

The blobs hold next to nothing, so all that is measured is the way to the arithmetic. Then SGD takes
turns with Caffe's over 200 blobs of 1,000 values, ResNet's shape, with caches that are warm, and
that were emptied. The start is that of a process of its own, from choosing the kernels to the end
of the first update, in the processor's time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np
from contestants import KERNELS
from machine import describe
from nets import parameter_layer, write_net
from raw_figures import write_figures
from rich.table import Table
from settings import RULES
from tables import console, median_ratio, print_machine
from turns import the_copy, timed

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import HyperParameters, Parameter, Updater, make_kernels, make_rule

BLOBS, VALUES, UPDATES = 100, 10, 50
RESNET = (200, 1000)  # blobs, values
CAFFE, FUSED = "caffe", "fused"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=["SGD", "Adam"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    parser.add_argument("--start", choices=RULES, help=argparse.SUPPRESS)  # in the own process
    arguments = parser.parse_args()
    if arguments.start:
        make_kernels("native", pycaffe.library_path())  # Caffe is there before anybody updates
        began = time.process_time()
        updater_of(arguments.start, "fused", True).step(0)
        print(time.process_time() - began)
        return
    result: Dict[str, Any] = {"machine": describe(), "rules": {}}
    print_machine(result["machine"])
    table = Table(title="microseconds per blob; seconds of the start of fused")
    for column in ("rule", *KERNELS, "start"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for rule in arguments.rules:
        blobs = per_blob(rule, arguments.pairs)
        starts = seconds_of_starts(rule, min(5, arguments.pairs))
        result["rules"][rule] = {"seconds per blob": blobs, "starts": starts}
        microseconds = [f"{1e6 * statistics.median(blobs[name]):.2f}" for name in KERNELS]
        table.add_row(rule, *microseconds, f"{statistics.median(starts):.2f}")
    console().print(table)
    result["resnet"] = {
        caches: beside_caffe(arguments.pairs, caches == "emptied") for caches in ("warm", "emptied")
    }
    for caches, seconds in result["resnet"].items():
        median = {name: f"{1e6 * statistics.median(seconds[name]):.0f} us" for name in seconds}
        print(
            f"SGD, {RESNET[0]} blobs of {RESNET[1]} values, caches {caches}: {median}, "
            f"{median_ratio(seconds[CAFFE], seconds[FUSED]):.2f} times faster than Caffe"
        )
    write_figures(arguments.json, result)


def updater_of(
    rule: str, kernels: str, exact: bool, blobs: int = BLOBS, values: int = VALUES
) -> Updater:
    """Return an updater of many small blobs."""
    parameters = [
        Parameter(str(number), *(np.full(values, np.float32(0.01)) for _ in range(2)))
        for number in range(blobs)
    ]
    h = HyperParameters(**RULES[rule].hyperparameters)
    made = make_kernels(kernels, pycaffe.library_path(), exact)
    return Updater(parameters, h, make_rule(RULES[rule].rule), made)


def per_blob(rule: str, pairs: int) -> Dict[str, List[float]]:
    """Return the seconds per blob of the kernels, taking turns."""
    updaters = {name: updater_of(rule, *choice) for name, choice in KERNELS.items()}
    seconds: Dict[str, List[float]] = {name: [] for name in updaters}
    for number in range(pairs + 1):
        for name, updater in updaters.items():
            took = timed(lambda step=updater.step: [step(i) for i in range(UPDATES)])
            if number:
                seconds[name].append(took / UPDATES / BLOBS)
    return seconds


def beside_caffe(pairs: int, emptied: bool) -> Dict[str, List[float]]:
    """Return the seconds of SGD's updates of ResNet's shape, Caffe's and ours in turn."""
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        net, solver = Path(folder, "net.prototxt"), Path(folder, "solver.prototxt")
        write_net(net, [parameter_layer(number, RESNET[1]) for number in range(RESNET[0])])
        fields = {"net": f'"{net}"', "lr_policy": '"fixed"', **RULES["SGD"].hyperparameters}
        solver.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
        native = pycaffe.package().get_solver(str(solver))
    for layer in native.net.layers:
        layer.blobs[0].diff[...] = 0.01
    updater = updater_of("SGD", "fused", True, *RESNET)
    updates = {CAFFE: native.apply_update, FUSED: lambda: updater.step(0)}
    seconds: Dict[str, List[float]] = {name: [] for name in updates}
    for number in range(10 * pairs + 1):
        for name, update in updates.items():
            if emptied:
                the_copy().bandwidth()
            took = timed(update)
            if number:
                seconds[name].append(took)
    return seconds


def seconds_of_starts(rule: str, count: int) -> List[float]:
    """Return the seconds of some starts."""
    command = [sys.executable, __file__, "--start", rule]
    return [float(subprocess.check_output(command, text=True)) for _ in range(count)]


if __name__ == "__main__":
    main()
