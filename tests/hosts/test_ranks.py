"""Several processes that train together over MPI: their bits, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest
from helpers.failures import failure, refusal
from helpers.places import BIN

from caffe_pysgd.hosts.ranks.launch import mpi_environment, placing
from caffe_pysgd.hosts.ranks.sources import most_ranks
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock.snapshots import read_model

# MPICH's mpiexec says the number of the process that died, not of the rank.
NAMES_RANKS = bool(placing(str(BIN / "mpiexec")))

SPOKEN_FOR = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

NET = """
name: "digits"
layer {
  name: "mnist" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.00390625 }
  data_param { source: "MNIST/mnist_train_lmdb" batch_size: 8 backend: LMDB }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 5 stride: 3 weight_filler { type: "xavier" } }
}
NORM
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer {
  name: "hidden" type: "InnerProduct" bottom: "conv" top: "hidden"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } }
}
layer {
  name: "out" type: "InnerProduct" bottom: "hidden" top: "out"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }
"""

NORM = """
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
"""

SOLVER = """
net: "net.prototxt"
base_lr: 0.05 lr_policy: "step" stepsize: 3 gamma: 0.5 momentum: 0.9 weight_decay: 0.001
max_iter: 6 snapshot: 3 snapshot_prefix: "PREFIX" random_seed: 4 display: 1
"""


class Digits:
    """A small net over the digits, trained in a working directory."""

    def __init__(self, cli: Callable[..., Any], mnist: Path) -> None:
        self._cli = cli
        self.net = NET.replace("MNIST", str(mnist / "examples" / "mnist"))

    def write(self, name: str, norm: str = "", solver: str = "", **ranks: Any) -> Path:
        Path("net.prototxt").write_text(self.net.replace("NORM", norm))
        path = Path(f"{name}.prototxt")
        path.write_text(SOLVER.replace("PREFIX", name) + solver)
        told = ", ".join(f"{key}: {value}" for key, value in ranks.items())
        source = Path(f"{name}.yaml")
        source.write_text(f"solver: {path}\nrun_dir: runs/{name}\nranks: {{{told}}}\n")
        return source

    def train(self, source: Path, *flags: object) -> subprocess.CompletedProcess:
        done = self._cli("train", source, *flags, GLOG_logtostderr="1")
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def solve(self, source: Path, ranks: int) -> None:
        done = self.run_solve(source, ranks)
        assert done.returncode == 0, done.stderr[-3000:]

    def run_solve(self, source: Path, ranks: int) -> subprocess.CompletedProcess:
        mpiexec = str(BIN / "mpiexec")
        command = [mpiexec, *placing(mpiexec), "-n", str(ranks)]
        command += [str(BIN / "caffe-pysgd"), "solve", str(source)]
        environment = mpi_environment({**os.environ, **SPOKEN_FOR})
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def digits(cli: Callable[..., Any], mnist: Path) -> Digits:
    return Digits(cli, mnist)


def weights(name: str, iteration: int = 6) -> Dict[str, np.ndarray]:
    model = read_model(Path(f"runs/{name}/snapshots/{name}_iter_{iteration}.caffemodel"))
    layers = [name for name in model if not name.startswith("pysgd")]
    return {f"{layer}/{i}": blob for layer in layers for i, blob in enumerate(model[layer])}


def same_bits(one: Dict[str, np.ndarray], other: Dict[str, np.ndarray]) -> bool:
    return {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in other.items()}


def furthest(one: Dict[str, np.ndarray], other: Dict[str, np.ndarray]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


TWO = "runs/two/snapshots/two_iter_3.solverstate"

# What one process with the whole batch sums in another order, after six updates.
ROUNDING = 2e-6


@pytest.mark.parametrize(
    ("solver", "counts"),
    [
        ("", (2, 4)),
        ('iter_size: 2 clip_gradients: 0.5 type: "Adam" momentum2: 0.99 delta: 1e-3', (2,)),
    ],
)
def test_ranks_repeat_to_the_bit_and_follow_one_process(
    digits: Digits, solver: str, counts: Tuple[int, ...]
) -> None:
    def train(name: str, ranks: int) -> Dict[str, np.ndarray]:
        source = digits.write(name, solver=solver, batch="total", bucket_bytes=512)
        digits.train(source, "--ranks", ranks)
        return weights(name)

    one = train("one", 1)
    for ranks in counts:
        first = train(f"first_{ranks}", ranks)
        assert same_bits(first, train(f"second_{ranks}", ranks))
        assert 0 < furthest(first, one) < ROUNDING * (100 if "Adam" in solver else 1)


def test_the_drop_in_solver_has_the_bits_of_caffe_train(digits: Digits) -> None:
    digits.train(digits.write("train", bucket_bytes=512), "--ranks", 2)
    digits.solve(digits.write("solve", bucket_bytes=512), 2)
    assert same_bits(weights("train"), weights("solve"))


@pytest.mark.parametrize("host", ["train", "solve"])
def test_rank_0_alone_logs(digits: Digits, host: str) -> None:
    source = digits.write("logged")
    source.write_text(source.read_text() + "loggers: [csv]\nlog_every: 1\n")
    if host == "train":
        digits.train(source, "--ranks", 2)
    else:
        digits.solve(source, 2)
    (metrics,) = Path("runs").glob("**/metrics.csv")
    lines = [line.split(",") for line in metrics.read_text().splitlines()[1:]]
    assert [(i, name) for i, name, _ in lines if name == "run/rate"] == [
        (str(i), "run/rate") for i in range(6)
    ]


def test_the_size_of_a_bucket_changes_no_bit(digits: Digits) -> None:
    digits.train(digits.write("many", bucket_bytes=1), "--ranks", 2)
    digits.train(digits.write("one", bucket_bytes=0), "--ranks", 2)
    assert Path("runs/many/net.prototxt").read_text().count("pysgd_send_") == 2
    assert "pysgd_send_" not in Path("runs/one/net.prototxt").read_text()
    assert same_bits(weights("many"), weights("one"))


def test_statistics_of_batchnorm_are_the_mean_of_the_ranks(digits: Digits) -> None:
    digits.train(digits.write("both", norm=NORM, check_every=1), "--ranks", 2)
    iteration = weights("both", 3)
    # The factor counts batches alike in every rank: 1 + 0.999 + 0.999 ** 2.
    assert iteration["norm/2"][0] == pytest.approx(1 + 0.999 + 0.999**2, rel=1e-6)
    assert iteration["norm/1"].min() > 0


def test_a_snapshot_resumes_with_any_number_of_ranks(digits: Digits) -> None:
    digits.train(digits.write("two", batch="total"), "--ranks", 2)
    for ranks in (2, 1, 4):
        source = digits.write(f"on_{ranks}", batch="total")
        log = digits.train(source, "--ranks", ranks, "--snapshot", TWO)
        assert "state resumed at iteration 3" in log.stderr
        assert furthest(weights(f"on_{ranks}"), weights("on_2")) < ROUNDING


def test_a_dry_run_prints_the_command_that_trains(digits: Digits) -> None:
    source = digits.write("typed")
    line = digits.train(source, "--ranks", 2, "--dry-run").stdout
    assert not list(Path("runs/typed").glob("**/*.caffemodel"))
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = mpi_environment({**os.environ, "PATH": path, "VIRTUAL_ENV": str(BIN.parent)})
    subprocess.run(line, shell=True, check=True, env=environment, capture_output=True, timeout=300)
    digits.train(digits.write("ours"), "--ranks", 2)
    assert same_bits(weights("typed"), weights("ours"))


FIND_RANK = """
import os
RANK = "OMPI_COMM_WORLD_RANK" if "OMPI_COMM_WORLD_RANK" in os.environ else "PMI_RANK"
"""

DRIFTING = (
    FIND_RANK
    + """
from caffe_pysgd import UpdateRule

class Drifting(UpdateRule):
    slots = ("history",)

    def update(self, p):
        strange = p.iteration == 2 and os.environ.get(RANK) == "1"
        return p.rate * p.diff * (1.5 if strange else 1.0)
"""
)


def test_a_rank_that_has_drifted_is_named(digits: Digits, cli: Callable[..., Any]) -> None:
    Path("drifting.py").write_text(DRIFTING)
    source = digits.write("drift", check_every=1)
    with source.open("a") as file:
        file.write("update: {rule: 'drifting:Drifting'}\n")
    done = cli("train", source, "--ranks", 3, GLOG_logtostderr="1")
    assert done.returncode == 2
    assert "rank 1: other weights before iteration 3 than the others'" in done.stderr


class Running:
    """A run of two ranks that goes on until it is stopped."""

    def __init__(self, digits: Digits) -> None:
        source = digits.write("long", solver="", timeout=3)
        self.log = Path("log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(BIN / "caffe-pysgd"),
                    "train",
                    str(source),
                    "--ranks=2",
                    "--iterations=1000000",
                ],
                env={**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"},
                stderr=log,
                stdout=log,
            )
        while b"Iteration 5 " not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def rank(self, which: str) -> int:
        found = subprocess.run(
            ["pgrep", "-f", f"^[^ ]*caffe train --solver=runs/long/{which}solver"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return next(
            int(pid) for pid in found.stdout.split()
            if Path(f"/proc/{pid}/cwd").resolve() == Path.cwd()
        )  # fmt: skip

    def end(self) -> List[str]:
        self.process.wait(timeout=30)
        return self.log.read_text(errors="replace").splitlines()


@pytest.fixture
def running(digits: Digits) -> Iterator[Running]:
    run = Running(digits)
    yield run
    run.process.kill()


def test_ctrl_c_snapshots_and_ends_all_ranks(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    log = running.end()
    assert running.process.returncode == 0
    assert any("Optimization stopped early" in line for line in log)
    states = Path.cwd().glob("runs/long/snapshots/long_iter_*.solverstate")
    newest = max(states, key=lambda path: path.stat().st_mtime_ns)
    assert newest.with_suffix(".caffemodel").exists()


def test_sighup_snapshots_and_goes_on(running: Running) -> None:
    before = len(running.log.read_bytes().split(b"Snapshotting to"))
    running.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert running.process.poll() is None
    assert len(running.log.read_bytes().split(b"Snapshotting to")) > before


def test_a_rank_that_is_killed_ends_all(running: Running) -> None:
    os.kill(running.rank("worker/"), signal.SIGKILL)
    log = running.end()
    assert running.process.returncode in (137, 9)  # Open MPI's, MPICH's
    assert any("rank 1" in line for line in log) or not NAMES_RANKS


def test_a_rank_that_hangs_is_named_and_ends_all(running: Running) -> None:
    os.kill(running.rank("worker/"), signal.SIGSTOP)
    log = running.end()
    assert running.process.returncode == 2
    assert "rank 0: rank 1 did not answer for 3 s at iteration" in "\n".join(log)


def test_records_that_all_ranks_would_share_are_refused(
    digits: Digits, cli: Callable[..., Any]
) -> None:
    digits.net = (
        digits.net.replace('type: "Data"', 'type: "ImageData"')
        .replace("data_param {", "image_data_param {")
        .replace("backend: LMDB", "")
    )
    Path("list.txt").write_text("nothing.png 0\n")
    done = cli("train", digits.write("same"), "--ranks", 2)
    assert failure(done)


def test_a_batch_that_cannot_be_shared_is_refused(digits: Digits, cli: Callable[..., Any]) -> None:
    line = failure(cli("train", digits.write("odd", batch="total"), "--ranks", 3))
    assert "batch_size 8 cannot be shared by 3 ranks" in line


def test_auto_takes_as_many_ranks_as_have_cores_and_records(digits: Digits) -> None:
    shared = resolve(digits.write("shared", batch="total"))
    assert [most_ranks(shared, cores) for cores in (1, 2, 3, 4, 7)] == [1, 2, 2, 4, 4]
    assert most_ranks(resolve(digits.write("each")), 7) == 7
    digits.net = digits.net.replace("batch_size: 8", "batch_size: 7")
    refusal(most_ranks, resolve(digits.write("odd", batch="total")), 6)


def test_verify_compares_two_runs_and_one_process(digits: Digits, cli: Callable[..., Any]) -> None:
    source = digits.write("proved")
    told = Path("told.py")
    told.write_text("import caffe_pysgd\nclass Told(caffe_pysgd.Logger):\n    begin_run = None\n")
    source.write_text(source.read_text() + "loggers: ['told:Told']\n")  # fails if it is run
    done = cli("verify", source, "--ranks", 2, "--json", "found.json")
    assert done.returncode == 0, done.stderr[-2000:]
    *_, near, _weights, _history, last = done.stdout.splitlines()
    assert near.startswith("one process: ")
    assert last == "verify: 0 of 6636 values differ, max 0 ulp, after 6 iterations"


MISSING = (
    FIND_RANK
    + """
import caffe

class Lost(caffe.Layer):
    def setup(self, bottom, top):
        self.done = 0
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        self.done += 1
        if self.done > 3 and os.environ.get(RANK) == "1":
            raise OSError("the record cannot be read")
        top[0].data[...] = bottom[0].data
    def backward(self, top, propagate_down, bottom):
        pass
"""
)


def test_bad_data_of_one_rank_ends_all(digits: Digits, cli: Callable[..., Any]) -> None:
    Path("lost.py").write_text(MISSING)
    layer = (
        'layer { name: "lost" type: "Python" bottom: "data" top: "lost" '
        'python_param { module: "lost" layer: "Lost" } }\nlayer {\n  name: "conv"'
    )
    digits.net = digits.net.replace('layer {\n  name: "conv"', layer, 1).replace(
        'type: "Convolution" bottom: "data"', 'type: "Convolution" bottom: "lost"'
    )
    done = cli("train", digits.write("lost"), "--ranks", 2, PYTHONPATH=str(Path.cwd()))
    assert done.returncode not in (0, 1)
    assert "rank 1" in done.stderr + done.stdout or not NAMES_RANKS


FAILING = (
    FIND_RANK
    + """
import sys
from caffe_pysgd import UpdateRule
from caffe_pysgd.errors import UserError

class Failing(UpdateRule):
    slots = ("history",)

    def __init__(self):
        when = "after" if "mpi4py.MPI" in sys.modules else "before"
        if when == "WHEN" and os.environ.get(RANK) == "1":
            raise UserError("no such record")
"""
)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_of_one_rank_before_training_ends_all(digits: Digits, when: str) -> None:
    """Before MPI knows of the rank, and after."""
    Path("failing.py").write_text(FAILING.replace("WHEN", when))
    source = digits.write("failing")
    source.write_text(source.read_text() + "update: {rule: 'failing:Failing'}\n")
    began = time.monotonic()
    done = digits.run_solve(source, 2)
    assert time.monotonic() - began < 100  # ranks.timeout is 300
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("caffe-pysgd: "))
    assert line.startswith("caffe-pysgd: rank 1: ")
    assert line.endswith("no such record")
