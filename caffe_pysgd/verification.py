"""Stock against Python: the same run twice, compared to the last bit."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Sequence

import numpy as np

from caffe_pysgd import pycaffe
from caffe_pysgd.compare import Comparison, compare
from caffe_pysgd.errors import UserError
from caffe_pysgd.prototxt.in_net import FIRST_STATE_BLOB
from caffe_pysgd.run import Run
from caffe_pysgd.snapshots import read_model, read_solver_state

Progress = Callable[[int], None]
"""Is told the last iteration that Caffe's log mentioned."""

_ITERATION = re.compile(rb"\] Iteration (\d+)")


@dataclass(frozen=True)
class Outcome:
    """Where a training run ended: weights and history per learnable parameter, in Caffe's order."""

    weights: List[np.ndarray]
    history: List[np.ndarray]


def prepare(run: Run) -> None:
    """Make the run repeatable and let it leave one snapshot, at its end."""
    solver = run.solver
    if solver.random_seed < 0:
        solver.random_seed = 1
    solver.snapshot = 0
    solver.snapshot_after_train = True


def train_stock(run: Run, directory: Path, flags: Sequence[str], progress: Progress) -> Outcome:
    """Train with the native solver.

    Raises:
        UserError: Caffe failed; its own reason is given.
    """
    run.solver.snapshot_prefix = str(directory / "snapshot")
    _train(run.write_stock(directory), flags, progress)
    state = _final_state(run, directory)
    model = read_model(state.learned_net)
    return Outcome([model[p.layer][p.index] for p in run.parameters], state.history)


def train_in_net(run: Run, directory: Path, flags: Sequence[str], progress: Progress) -> Outcome:
    """Train with the update in Python, inside the net.

    Raises:
        UserError: Caffe failed; its own reason is given.
    """
    run.solver.snapshot_prefix = str(directory / "snapshot")
    _train(run.write_injected(directory), flags, progress)
    model = read_model(_final_state(run, directory).learned_net)
    return Outcome(
        [model[p.layer][p.index] for p in run.parameters],
        model[run.settings().hook_name][FIRST_STATE_BLOB:],
    )


def compare_weights(run: Run, stock: Outcome, ours: Outcome) -> List[Comparison]:
    """Compare the weights, parameter by parameter."""
    return [
        compare(p.name, expected, found)
        for p, expected, found in zip(run.parameters, stock.weights, ours.weights)
    ]


def compare_history(run: Run, stock: Outcome, ours: Outcome) -> List[Comparison]:
    """Compare the history, blob by blob.

    Raises:
        UserError: the two keep a different number of history blobs.
    """
    names = run.settings().state_names()
    if not len(names) == len(stock.history) == len(ours.history):
        raise UserError(
            f"{run.source}: the native solver keeps {len(stock.history)} history blobs, rule "
            f"'{run.rule}' keeps {len(ours.history)}: they cannot be compared"
        )
    return [
        compare(name, expected, found)
        for name, expected, found in zip(names, stock.history, ours.history)
    ]


def _final_state(run: Run, directory: Path) -> Any:
    suffix = ".h5" if run.solver.snapshot_format == type(run.solver).HDF5 else ""
    return read_solver_state(directory / f"snapshot_iter_{run.solver.max_iter}.solverstate{suffix}")


def _train(solver: Path, flags: Sequence[str], progress: Progress) -> None:
    """Run `caffe train`, its log going to a file beside the solver file."""
    log_path = solver.parent / "caffe.log"
    command = [str(pycaffe.binary()), "train", f"--solver={solver}", *flags]
    environment = {**pycaffe.binary_environment(), "GLOG_logtostderr": "1"}
    environment.pop("GLOG_minloglevel", None)
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert process.stderr is not None
        try:
            for line in process.stderr:
                log.write(line)
                mentioned = _ITERATION.search(line)
                if mentioned:
                    progress(int(mentioned[1]))
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
    if process.returncode != 0:
        raise UserError(
            f"caffe train failed: {pycaffe.last_words(log_path.read_text(errors='replace'))}"
        )
