"""Stock against Python: the same run twice, compared to the last bit."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from caffe_pysgd.arrays import Floats
from caffe_pysgd.audit.plan import plan_audit, write_manifest
from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.outputs import SOLVER
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import FIRST_STATE_BLOB
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import Model, read_model, read_solver_state, snapshot_names
from caffe_pysgd.stock.solver_file import asks_for_gpu
from caffe_pysgd.update.bits import Comparison, compare

Progress = Callable[[int], None]
"""Is told the last iteration that Caffe's log mentioned."""

# The working directory is for the net's files; it must not stand in the way of an import.
_ALONE = "import sys; del sys.path[0]; import caffe_pysgd;"
_NATIVE = (
    "from caffe_pysgd.stock import pycaffe; pycaffe.compiled().get_solver(sys.argv[1]).solve()"
)

_ITERATION = re.compile(rb"\] Iteration (\d+)")
_TESTING = re.compile(r"\] Iteration (\d+), Testing net \(#(\d+)\)")
_TEST_OUTPUT = re.compile(r"Test net output #\d+: (\S+) = (\S+)")


@dataclass(frozen=True)
class Outcome:
    """Where a training run ended.

    Attributes:
        weights: flat, one array per learnable parameter, in Caffe's order.
        history: flat, one array per history blob, in the order of ``.solverstate``.
        scores: what the last test said: ``{"#0 at iteration 200: accuracy": 0.955}``.
        log: Caffe's log.
    """

    weights: List[Floats]
    history: List[Floats]
    scores: Dict[str, float]
    log: str


def prepare(run: Run) -> Run:
    """Return the run made repeatable, with one snapshot, at its end.

    Raises:
        UserError: the native solver cannot do what this run does, or this Caffe cannot.
    """
    run.refuse_beyond_caffe()
    if asks_for_gpu(run.solver):
        pycaffe.require_gpu()
    return repeatable(run)


def repeatable(run: Run) -> Run:
    """Return the run with a seed, one snapshot, at its end, and no loggers."""
    return seeded(run).with_solver(snapshot=0, snapshot_after_train=True).configured(loggers=[])


def seeded(run: Run) -> Run:
    """Return the run with a random seed: its own, or 1."""
    return run if run.solver.random_seed >= 0 else run.with_solver(random_seed=1)


def train_stock(run: Run, directory: Path, flags: Sequence[str], progress: Progress) -> Outcome:
    """Train with the native solver: `caffe train`, or pycaffe's where there is no such program.

    Raises:
        UserError: Caffe failed; its own reason is given.
    """
    run = run.with_solver(snapshot_prefix=str(directory / "snapshot"))
    if pycaffe.find_binary():
        log = _train(run.write_stock(directory), flags, progress)
    else:
        solver = run.with_solver(train_state=run.state).write_stock(directory)
        command = [sys.executable, "-c", f"{_ALONE} {_NATIVE}", str(solver)]
        log = run_logged(command, directory / "caffe.log", progress)
    state = _final_state(run, directory)
    weights = _weights(run, read_model(state.learned_net))
    return Outcome(weights, state.history, last_scores(log), log)


def train_in_net(run: Run, directory: Path, flags: Sequence[str], progress: Progress) -> Outcome:
    """Train with the update in Python, inside the net.

    Raises:
        UserError: Caffe failed; its own reason is given.
    """
    run = run.with_solver(snapshot_prefix=str(directory / "snapshot"))
    audit = plan_audit(run, directory)
    solver = write_injected(run, directory, audit=audit)
    write_manifest(run, audit, "in-net")
    return outcome_in_net(run, directory, _train(solver, flags, progress))


def outcome_in_net(run: Run, directory: Path, log: str) -> Outcome:
    """Return where an in-net run ended that has its snapshot in a folder."""
    model = read_model(_final_state(run, directory).learned_net)
    history = model[run.settings().hook_name][FIRST_STATE_BLOB:]
    return Outcome(_weights(run, model), history, last_scores(log), log)


def train_hook(run: Run, directory: Path, flags: Sequence[str], progress: Progress) -> Outcome:
    """Train with the update in Python, hung on a pycaffe solver.

    Raises:
        UserError: Caffe failed; its own reason is given.
    """
    program = f"{_ALONE} caffe_pysgd.take_over(sys.argv[1]).solve()"
    return _train_in_python(run, directory, [sys.executable, "-c", program], progress)


def train_solver(run: Run, directory: Path, flags: Sequence[str], progress: Progress) -> Outcome:
    """Train with the drop-in solver.

    Raises:
        UserError: Caffe failed; its own reason is given.
    """
    program = f"{_ALONE} caffe_pysgd.get_solver(sys.argv[1]).solve()"
    return _train_in_python(run, directory, [sys.executable, "-c", program], progress)


HOSTS = {"in-net": train_in_net, "hook": train_hook, "solver": train_solver}


def _train_in_python(
    run: Run, directory: Path, program: Sequence[str], progress: Progress
) -> Outcome:
    prefix = str(directory / "snapshot")
    run.with_solver(snapshot_prefix=prefix, train_state=run.state).write_stock(directory)
    source = directory / "run.yaml"
    update = f"{{kernels: {run.update.kernels}, exact: {str(run.update.exact).lower()}}}"
    source.write_text(
        f"solver: {SOLVER}\nrun_dir: .\nsnapshots: {{prefix: snapshot}}\nupdate: {update}\n"
    )
    log = run_logged([*program, str(source)], directory / "caffe.log", progress)
    state = _final_state(run, directory)
    weights = _weights(run, read_model(state.learned_net))
    return Outcome(weights, state.history, last_scores(log), log)


def last_scores(log: str) -> Dict[str, float]:
    """Return what the last test in a Caffe log said, by iteration, test net and output."""
    scores: Dict[str, float] = {}
    tested = net = ""
    for line in log.splitlines():
        testing, output = _TESTING.search(line), _TEST_OUTPUT.search(line)
        if testing:
            if testing[1] != tested:
                scores.clear()
            tested, net = testing.groups()
        elif output:
            scores[f"#{net} at iteration {tested}: {output[1]}"] = float(output[2])
    return scores


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


def _weights(run: Run, model: Model) -> List[Floats]:
    return [model[p.layer][p.index] for p in run.parameters]


def _final_state(run: Run, directory: Path) -> Any:
    _, state = snapshot_names(directory / "snapshot", run.solver.max_iter, run.hdf5)
    return read_solver_state(state)


def _train(solver: Path, flags: Sequence[str], progress: Progress) -> str:
    """Run `caffe train`; return its log, which is also kept beside the solver file."""
    command = [str(pycaffe.binary()), "train", f"--solver={solver}", *flags]
    return run_logged(command, solver.parent / "caffe.log", progress)


def run_logged(
    command: Sequence[str],
    log_path: Path,
    progress: Progress,
    more: Optional[Mapping[str, str]] = None,
) -> str:
    """Run a program that writes Caffe's log; return the log, which is also kept in a file.

    Args:
        command: the program.
        log_path: the file.
        progress: hears of iterations.
        more: environment variables of its own.

    Raises:
        UserError: it failed; its own reason is given.
    """
    environment = {**pycaffe.binary_environment(), "GLOG_logtostderr": "1", **(more or {})}
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
    text = log_path.read_text(errors="replace")
    if process.returncode != 0:
        raise UserError(f"training failed: {pycaffe.failure_reason(text)}")
    return text


def verdict(
    weights: List[Comparison], history: List[Comparison], iterations: int
) -> Dict[str, Any]:
    """Return what a verification found, as it is written to a file."""
    both = weights + history
    return {
        "iterations": iterations,
        "values": sum(part.count for part in both),
        "differ": sum(part.differ for part in both),
        "max_ulp": max(part.max_ulp for part in both),
        "weights": [asdict(part) for part in weights],
        "history": [asdict(part) for part in history],
    }
