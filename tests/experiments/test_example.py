"""The sweep among the examples is what it says it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.places import PROJECT

from caffe_pysgd.experiments.study import planned_runs
from caffe_pysgd.experiments.sweep_file import read_sweep

MNIST = PROJECT / "examples" / "mnist"


def test_the_example_is_twelve_runs(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mnist)
    sweep = read_sweep(Path("examples/mnist/sweep.yaml"))
    names = [attributes["run"] for attributes, _ in planned_runs(sweep)]
    assert len(names) == len(set(names)) == 12
    assert "rule=adam,base_lr=0.001,seed=2" in names
    assert (sweep.max_iter, sweep.tests, sweep.snapshots) == (200, 2, 2)


def test_its_net_is_lenet_but_for_the_batch() -> None:
    def layers(name: str) -> str:
        return (MNIST / name).read_text().partition("name:")[2]

    ours, lenet = layers("lenet_sweep_net.prototxt"), layers("lenet_train_test.prototxt")
    assert ours == lenet.replace("batch_size: 64", "batch_size: 90")
