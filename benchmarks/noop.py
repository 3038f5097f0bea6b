"""What the native update costs that an in-net run must leave to Caffe, with nothing to do.

Caffe's ApplyUpdate runs after Python's and finds all diffs zero. The injected solver makes that
cheaper: a momentum of 1 and an lr_mult of 0 are factors that a BLAS has nothing to do for. Compared
are those (now), momentum 0 and lr_mult 1 (plain), and an SGD update that does something (full).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, Dict, List

os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np
from machine import describe
from nets import lenet, two_squares, write_net
from raw_figures import write_figures
from rich.table import Table
from tables import console, median_ratio, print_machine
from turns import Contestant, take_turns, timed

from caffe_pysgd.stock import pycaffe

# name: momentum, lr_mult of weights and of biases
WAYS = {"now": (1, (0, 0)), "plain": (0, (1, 2)), "full": (0.9, (1, 2))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4096, help="of the two square layers")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    arguments = parser.parse_args()
    result: Dict[str, Any] = {"machine": describe(), "nets": []}
    print_machine(result["machine"])
    table = Table(title="the native ApplyUpdate, ms")
    for column in ("values", "full", "plain", "now", "plain / now"):
        table.add_column(column, justify="right")
    for way_to_layers in (lenet, lambda lr_mults: two_squares(arguments.width, lr_mults)):
        net = measure(way_to_layers, arguments.pairs)
        result["nets"].append(net)
        seconds = net["seconds"]
        median = {way: f"{1000 * statistics.median(seconds[way]):.3g}" for way in WAYS}
        ratio = f"{median_ratio(seconds['plain'], seconds['now']):.2f}"
        table.add_row(f"{net['values']:,}", median["full"], median["plain"], median["now"], ratio)
    console().print(table)
    write_figures(arguments.json, result)


def measure(layers_for: Any, pairs: int) -> Dict[str, Any]:
    """Return how long the updates of a net take, each way."""
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        solvers = {
            way: solver_for(Path(folder), way, layers_for(lr_mults), momentum)
            for way, (momentum, lr_mults) in WAYS.items()
        }
        blobs = [blob for layer in solvers["full"].net.layers for blob in layer.blobs]
        contestants = [
            Contestant(
                way,
                (lambda: fill(blobs)) if way == "full" else (lambda: None),
                lambda solver=solver: timed(solver.apply_update),
            )
            for way, solver in solvers.items()
        ]
        seconds = take_turns(contestants, pairs)["seconds"]
    return {"values": sum(blob.count for blob in blobs), "seconds": seconds}


def solver_for(folder: Path, way: str, layers: List[str], momentum: float) -> Any:
    """Return a native SGD solver of these layers."""
    net, solver = folder / f"{way}.prototxt", folder / f"{way}_solver.prototxt"
    write_net(net, layers)
    solver.write_text(
        f'net: "{net}"\ntype: "SGD"\nbase_lr: 0.0001\nlr_policy: "fixed"\nmomentum: {momentum}\n'
    )
    return pycaffe.package().get_solver(str(solver))


def fill(blobs: List[Any]) -> None:
    """Give blobs a gradient."""
    for blob in blobs:
        blob.diff[...] = np.float32(0.01)


if __name__ == "__main__":
    main()
