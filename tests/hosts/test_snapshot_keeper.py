"""``snapshots.keep_last`` and ``keep_best``, in each host: what stays, and what is removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from helpers.failures import failure
from helpers.hosts import HOSTS, PYTHON_HOSTS, train
from helpers.nets import SMALL, write_solver

from caffe_pysgd.audit.store import Store
from caffe_pysgd.hosts.snapshot_keeper import SnapshotKeeper
from caffe_pysgd.run.settings import KeepSettings
from caffe_pysgd.stock.complete import is_complete

TESTED = {"test_iter": [2], "test_interval": 5, "snapshot": 10, "max_iter": 100}


def write_yaml(folder: Path, keys: str, **fields: Any) -> Path:
    write_solver(folder, SMALL, snapshot_prefix="s", **{**TESTED, **fields})
    path = folder / "run.yaml"
    path.write_text(f"solver: solver.prototxt\nrun_dir: run\naudit: true\nsnapshots: {{{keys}}}\n")
    return path


def left(folder: Path) -> List[int]:
    """Return the iterations of the snapshots that are there, all of them complete."""
    states = list(folder.glob("run/snapshots/*.solverstate*"))
    assert all(map(is_complete, folder.glob("run/snapshots/*_iter_*")))
    assert len(list(folder.glob("run/snapshots/*.caffemodel*"))) == len(states)
    return sorted(int(path.name.split("_iter_")[1].split(".")[0]) for path in states)


def scores(folder: Path) -> Dict[int, float]:
    """Return the recorded scores at the iterations of snapshots."""
    with Store(folder / "run") as store:
        iterations, values = store.tests()[0, "loss"]
    return {int(i): v for i, v in zip(iterations, values) if i and i % TESTED["snapshot"] == 0}


@pytest.mark.parametrize("host", HOSTS)
def test_the_last_and_the_best_stay(workdir: Path, cli: Any, host: str) -> None:
    source = write_yaml(workdir, "keep_last: 2, keep_best: {max: loss}")
    theirs = workdir / "run/snapshots/s_notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("not the run's")
    assert train(cli, source, host) == ""
    known = scores(workdir)
    assert len(known) == 10
    best = max(known, key=lambda i: (known[i], -i))
    assert left(workdir) == sorted({best, 90, 100})
    assert theirs.exists()
    noted = json.loads((workdir / "run/snapshots/s_kept.json").read_text())
    assert {int(i): score for i, score in noted.items()} == {i: known[i] for i in left(workdir)}


@pytest.mark.parametrize("command", ["train", "solve"])
def test_a_resumed_run_goes_on_keeping(workdir: Path, cli: Any, command: str) -> None:
    source = write_yaml(workdir, "keep_best: {min: loss}", snapshot_format="HDF5")
    assert cli(command, source, "--iterations=55").returncode == 0
    first = scores(workdir)
    best = min(first, key=lambda i: (first[i], i))
    assert left(workdir) == sorted({best, 55})
    resumed = cli(command, source, "--snapshot=auto")
    assert resumed.returncode == 0, resumed.stderr
    known = {**first, **scores(workdir)}
    best = min(known, key=lambda i: (known[i], i))
    assert left(workdir) == sorted({best, 100})


def test_of_an_abandoned_way_nothing_counts(workdir: Path) -> None:
    source = write_yaml(workdir, "keep_last: 2, keep_best: {min: loss}")
    first = PYTHON_HOSTS["solver"](source)
    first.step(50)
    first.close()
    assert {40, 50} <= set(left(workdir))
    again = PYTHON_HOSTS["solver"](source)
    again.restore("run/snapshots/s_iter_40.solverstate")
    again.step(45)
    assert {70, 80} <= set(left(workdir))


def test_the_loss_of_the_training_decides(workdir: Path, cli: Any) -> None:
    fields = {"test_iter": None, "test_interval": None}
    source = write_yaml(workdir, "keep_best: {min: train_loss}", **fields)
    assert cli("train", source).returncode == 0
    with Store(workdir / "run") as store:
        losses = dict(zip(*store.series("smoothed_loss")))
    found = {i: losses[i - 1] for i in range(10, 101, 10)}
    assert left(workdir) == sorted({min(found, key=lambda i: (found[i], i)), 100})


def test_a_score_that_there_will_not_be_is_told_before_training(workdir: Path, cli: Any) -> None:
    source = write_yaml(workdir, "keep_best: {max: accuracy}")
    expected = "snapshots.keep_best: got 'accuracy'; expected one of loss, train_loss"
    assert expected in failure(cli("train", source))
    assert expected in cli("solve", source).stderr
    source = write_yaml(workdir, "keep_best: {max: loss}", snapshot=12)
    expected = "snapshot: got 12; not every snapshot is tested: snapshot must be a multiple of 5"
    assert expected in failure(cli("train", source))


def test_nothing_is_removed_before_the_newest_is_complete(tmp_path: Path) -> None:
    said: List[str] = []
    keeper = SnapshotKeeper(KeepSettings(str(tmp_path / "s"), False, 1, "", False), said.append)
    for iteration, content in ((1, b"\x0a\x01x"), (2, b"\x0a\x09torn"), (3, b"\x0a\x01x")):
        paths = [tmp_path / f"s_iter_{iteration}.{kind}" for kind in ("caffemodel", "solverstate")]
        for path in paths:
            path.write_bytes(content)
        keeper.begin(iteration - 1, np.float32(0), [])
        keeper.snapshot_taken(iteration, paths)
        there = sorted(p.name for p in tmp_path.glob("*.solverstate"))
        expected = {1: [1], 2: [1, 2], 3: [2, 3]}[iteration]
        assert there == [f"s_iter_{n}.solverstate" for n in expected]
    assert len(said) == 1
    assert "s_iter_2.solverstate is not complete; no snapshot is removed" in said[0]
