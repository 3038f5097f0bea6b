"""What the full audit costs: the figures and their recording at every iteration, as ratios.

Two measurements, each in one process, the variants taking turns, so that what else the machine does
hits all of them alike:

- LeNet: an iteration of the drop-in solver without an audit, with the figures taken and dropped,
  and with the audit. Needs the MNIST LMDBs (`make data`).
- An update alone, of parameters with 30 million values and random gradients.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from machine import describe
from raw_figures import write_figures

from caffe_pysgd import get_solver
from caffe_pysgd.audit.recorder import Recorder
from caffe_pysgd.run.settings import AuditSettings, ParameterSettings, UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import HyperParameters, Observer, Parameter, Updater, make_rule
from caffe_pysgd.update.kernel_choice import make_kernels

VARIANTS = ("none", "figures", "audit")


class Figures(Observer):
    """Takes the figures and drops them."""

    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return True


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solver", default="examples/mnist/lenet_solver.prototxt", type=Path)
    parser.add_argument("--iterations", default=150, type=int, help="of each variant")
    parser.add_argument("--updates", default=15, type=int, help="of each variant, at 30 million")
    parser.add_argument("--values", default=30_000_000, type=int)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        iteration, update = lenet(arguments.solver, arguments.iterations, Path(folder))
        say(f"{arguments.solver.stem}, an iteration", iteration)
        say(f"{arguments.solver.stem}, its update", update)
        alone = update_alone(arguments.values, arguments.updates, Path(folder))
        say(f"{arguments.values:,} values, the update alone", alone)
    found = {"iteration": iteration, "update": update, "update alone": alone}
    write_figures(arguments.json, {"machine": describe(), **found})


def say(what: str, seconds: Dict[str, List[float]]) -> None:
    """Print the medians, and what they come to."""
    median = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    without = median["none"]
    shown = ", ".join(f"{name} {value:.3f} ms" for name, value in median.items())
    print(
        f"{what}: {shown}; the audit costs {(median['audit'] - without) / without:.3f} of it, the "
        f"recorder alone {(median['audit'] - median['figures']) / without:.3f}",
        flush=True,
    )


def lenet(source: Path, iterations: int, folder: Path) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the seconds of whole iterations, and of their updates, by variant."""
    solvers = {}
    for name in VARIANTS:
        yaml = folder / f"{name}.yaml"
        audit = "audit: {weights_every: 0}\n" if name == "audit" else ""
        yaml.write_text(f"solver: {source.resolve()}\nrun_dir: {name}\n{audit}")
        solver = solvers[name] = get_solver(yaml)
        solver.param.test_interval = solver.param.display = solver.param.snapshot = 0
        if name == "figures":
            solver.updater.observers.append(Figures())
        solver.step(10)
    whole: Dict[str, List[float]] = {name: [] for name in VARIANTS}
    update: Dict[str, List[float]] = {name: [] for name in VARIANTS}
    for name, solver in solvers.items():
        solver.apply_update = timed(solver.apply_update, update[name])
    for turn in range(iterations):
        for name in VARIANTS[turn % 3 :] + VARIANTS[: turn % 3]:
            timed(solvers[name].step, whole[name])(1)
    return whole, update


def update_alone(values: int, updates: int, folder: Path) -> Dict[str, List[float]]:
    """Return the seconds of updates, by variant."""
    shapes = [(values // 2,), (values // 3,), (values - values // 2 - values // 3,)]
    generator = np.random.default_rng(1)
    gradients = [generator.standard_normal(shape[0], np.float32) for shape in shapes]
    kernels = make_kernels("auto", pycaffe.library_path())
    h = HyperParameters(base_lr=0.01, momentum=0.9, weight_decay=0.0005)
    parameters = [
        Parameter(f"w/{number}", gradient * np.float32(0.1), gradient.copy(), 1, 1)
        for number, gradient in enumerate(gradients)
    ]
    updater = Updater(parameters, h, make_rule("sgd"), kernels)
    recorder = Recorder(_settings(h, shapes, folder / "alone.sqlite"), "solver", print)
    observers: Dict[str, List[Observer]] = {"none": [], "figures": [Figures()], "audit": [recorder]}
    seconds: Dict[str, List[float]] = {name: [] for name in VARIANTS}
    recorded = 0
    for turn in range(updates + 1):
        for name in VARIANTS:
            updater.observers[:] = observers[name]
            for parameter, gradient in zip(parameters, gradients):
                np.copyto(parameter.diff, gradient)
            began = time.perf_counter()
            rate = updater.step(recorded if name == "audit" else 0)
            if name == "audit":
                recorder.updated(recorded, rate, None)
                recorded += 1
            if turn:  # the first compiles, and opens the file
                seconds[name].append(time.perf_counter() - began)
    recorder.close()
    return seconds


def _settings(h: HyperParameters, shapes: List[Tuple[int, ...]], file: Path) -> UpdateSettings:
    parameters = tuple(
        ParameterSettings(f"w/{number}", shape, 1.0, 1.0, "sgd", ("history",), {}, 0, None)
        for number, shape in enumerate(shapes)
    )
    audit = AuditSettings(
        file=str(file),
        manifest="",
        every=1,
        histograms=0,
        probes=(),
        weights_every=0,
        max_iter=0,
        average_loss=1,
        snapshot_prefix="",
        hdf5=False,
    )
    return UpdateSettings(
        rule="sgd",
        kernels="auto",
        exact=True,
        hyperparameters=h.as_plain(),
        parameters=parameters,
        display=0,
        resume="auto",
        registered=False,
        module_path="",
        audit=audit,
    )


def timed(function: Callable[..., Any], seconds: List[float]) -> Callable[..., Any]:
    """Return a function that also notes how long each call takes."""

    def call(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    return call


if __name__ == "__main__":
    main()
