"""Running a solver file both ways, in one process and in the ``caffe`` binary."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import caffe
import numpy as np

from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import FIRST_STATE_BLOB
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import read_model, read_solver_state
from caffe_pysgd.update.bits import Comparison, compare


@dataclass
class Both:
    """A run written for the native solver and for Python's update, each in its own folder."""

    run: Run
    stock: Path
    ours: Path

    @classmethod
    def write(cls, source: Path, **resolving: Any) -> Both:
        run = resolve(source, **resolving)
        files = {}
        for name, write in (("stock", Run.write_stock), ("ours", write_injected)):
            written = run.with_solver(snapshot_prefix=str(source.parent / name / "snap"))
            files[name] = write(written, source.parent / name)
        return cls(run, files["stock"], files["ours"])

    def final(self, iteration: Optional[int] = None) -> List[Comparison]:
        """Compare the snapshots at an iteration, weights and history."""
        iteration = iteration or self.run.solver.max_iter
        suffix = ".h5" if self.run.solver.snapshot_format == type(self.run.solver).HDF5 else ""
        name = f"snap_iter_{iteration}.solverstate{suffix}"
        stock = read_solver_state(self.stock.parent / name)
        ours = read_solver_state(self.ours.parent / name)
        assert ours.iteration == stock.iteration == iteration
        assert ours.current_step == stock.current_step
        stock_model, our_model = read_model(stock.learned_net), read_model(ours.learned_net)
        weights = [
            compare(p.name, stock_model[p.layer][p.index], our_model[p.layer][p.index])
            for p in self.run.parameters
        ]
        state = our_model[self.run.settings().hook_name][FIRST_STATE_BLOB:]
        assert len(state) == len(stock.history)
        names = self.run.settings().state_names()
        return weights + [compare(*both) for both in zip(names, stock.history, state)]


def assert_same_bits(comparisons: List[Comparison]) -> None:
    assert comparisons
    differing = [str(comparison) for comparison in comparisons if comparison.differ]
    assert not differing, "\n".join(differing)


def caffe_train(solver: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """Run stock `caffe train`; return it with its log."""
    inherited = {**pycaffe.binary_environment(), "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
    return subprocess.run(
        [str(pycaffe.binary()), "train", f"--solver={solver}", *flags],
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        close_fds=False,
        text=True,
        timeout=300,
    )


def weights_of(both: Both, solver: Any) -> List[np.ndarray]:
    """Return copies of a pycaffe solver's weights, parameter by parameter."""
    return [np.array(solver.net.params[p.layer][p.index].data).ravel() for p in both.run.parameters]


def same_weights(both: Both, expected: Sequence[Any], found: Sequence[Any], when: str) -> None:
    names = [f"{p.name} {when}" for p in both.run.parameters]
    assert_same_bits([compare(*three) for three in zip(names, expected, found)])


def step_both(both: Both, iterations: int) -> Dict[str, Any]:
    """Step pycaffe solvers of both, and compare the weights after every iteration.

    One after the other: all solvers of a process draw from one random generator, which the
    constructor seeds.
    """
    solvers, weights = {}, {}
    for name, path in (("stock", both.stock), ("ours", both.ours)):
        solver = solvers[name] = caffe.get_solver(str(path))
        weights[name] = []
        for _ in range(iterations):
            solver.step(1)
            weights[name].append(weights_of(both, solver))
    for iteration, (stock, ours) in enumerate(zip(weights["stock"], weights["ours"])):
        same_weights(both, stock, ours, f"after iteration {iteration}")
    return solvers


def break_hook(both: Both) -> None:
    """Let the hook of our net ask for kernels that there are not."""
    net = both.ours.parent / "net.prototxt"
    text = net.read_text()
    assert '\\"kernels\\": \\"auto\\"' in text
    net.write_text(text.replace('\\"kernels\\": \\"auto\\"', '\\"kernels\\": \\"none\\"'))


def losses(log: str) -> List[str]:
    """Return what Caffe's log says of the loss and the rate, in order."""
    lines = [line.split("] ", 1)[1] for line in log.splitlines() if "] " in line]
    kept = []
    for line in lines:
        if line.startswith("Iteration") and "loss = " in line:
            kept.append(line.split(" (")[0].split(",")[0] + line[line.index("loss = ") :])
        elif "lr = " in line or "Test net output" in line:
            kept.append(line)
    return kept


os.environ.pop("CAFFE_PYSGD_RESUME", None)
