"""The guard against gradients that are not finite, without an audit, in every host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List

import caffe
import numpy as np
import pytest
from helpers.hosts import HOSTS, Make, train
from helpers.nets import EXPLODING, SMALL, write_solver
from helpers.runs import assert_same_bits

from caffe_pysgd.stock.snapshots import read_model
from caffe_pysgd.update import Observer
from caffe_pysgd.update.bits import compare

LAST = EXPLODING["max_iter"]
MODEL = f"run_snap_iter_{LAST}.caffemodel"


@pytest.fixture
def source(workdir: Path) -> Path:
    write_solver(workdir, SMALL, "run", **EXPLODING)
    return workdir / "run.yaml"


def write(source: Path, reaction: str) -> None:
    source.write_text(
        "solver: run.prototxt\nrun_dir: run\nsnapshots: {prefix: run_snap, overwrite: true}\n"
        f"update: {{on_nonfinite: {reaction}}}\n"
    )


def native_weights() -> List[List[np.ndarray]]:
    """Return the weights at the start of each iteration of the native solver, and at its end."""
    solver = caffe.SGDSolver("run.prototxt")
    trail = []

    def note() -> None:
        blobs = [blob for layer in solver.net.layers for blob in layer.blobs]
        trail.append([blob.data.reshape(-1).copy() for blob in blobs])

    solver.add_callback(note, lambda: None)
    solver.step(LAST)
    note()
    return trail


def last_finite(trail: List[List[np.ndarray]]) -> int:
    return max(i for i, w in enumerate(trail) if all(np.isfinite(values).all() for values in w))


def trained_weights() -> List[np.ndarray]:
    model = read_model(Path(MODEL))
    return [blob for layer in ("conv", "hidden", "out") for blob in model[layer]]


@pytest.mark.parametrize("host", HOSTS)
def test_stop_ends_training_with_one_line(cli: Callable, source: Path, host: str) -> None:
    write(source, "stop")
    said = train(cli, source, host)
    assert "of the gradient at iteration" in said
    assert said.endswith("training stops here (update.on_nonfinite: skip or ignore goes on)")
    assert not Path(MODEL).exists()


@pytest.mark.parametrize("host", HOSTS)
def test_skip_keeps_the_last_finite_weights(cli: Callable, source: Path, host: str) -> None:
    write(source, "skip")
    assert not train(cli, source, host)
    trail = native_weights()
    kept = trail[last_finite(trail)]
    # Weights may be finite where the next gradient no longer is; they are kept from there on.
    assert_same_bits([compare("kept", *both) for both in zip(kept, trained_weights())])


@pytest.mark.parametrize("host", HOSTS)
def test_ignore_is_what_caffe_does(cli: Callable, source: Path, host: str) -> None:
    write(source, "ignore")
    assert not train(cli, source, host)
    end = native_weights()[-1]
    assert not all(np.isfinite(values).all() for values in end)
    assert_same_bits([compare("end", *both) for both in zip(end, trained_weights())])


class Ear(Observer):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: List[str] = []

    def due(self, iteration: int) -> bool:
        return False

    def iteration_begins(self) -> None:
        self.heard.append("begins")

    def loss(self, raw: Any, smoothed: Any) -> None:
        self.heard.append("loss")

    def updated(self, iteration: int, rate: Any, clipping: Any) -> None:
        self.heard.append(f"updated {iteration}")

    def tested(self, iteration: Any, net: int, scores: Any) -> None:
        self.heard.append(f"tested {iteration}")

    def snapshot_taken(self, iteration: int, paths: Any) -> None:
        self.heard.append(f"snapshot {iteration}")

    def restored(self) -> None:
        self.heard.append("restored")

    def close(self) -> None:
        self.heard.append("closed")


def test_an_observer_of_ones_own_hears_what_happens(workdir: Path, make: Make) -> None:
    tested = {"test_iter": 2, "test_interval": 2, "test_initialization": False}
    write_solver(workdir, SMALL, snapshot=2, snapshot_prefix=workdir / "s", **tested)
    solver, ear = make("solver.prototxt"), Ear()
    solver.updater.observers.append(ear)
    solver.step(3)
    iterations = [["begins", "loss", f"updated {i}"] for i in range(3)]
    expected = [*iterations[0], *iterations[1], "snapshot 2", "tested 2", *iterations[2]]
    assert ear.heard == expected
    ear.heard.clear()
    solver.restore("s_iter_2.solverstate")
    solver.close()
    assert ear.heard == ["restored", "closed"]
