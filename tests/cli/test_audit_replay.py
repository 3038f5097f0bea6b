"""``caffe-pysgd audit replay``: what it prints, and how it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from helpers.failures import failure
from helpers.nets import SMALL
from helpers.solved_runs import train, write_run


def test_a_setting_that_was_changed_on_the_way_is_named_where_it_acts(
    workdir: Path, cli: Callable
) -> None:
    write_run(workdir)
    train(7, momentum=0.5)
    done = cli("audit", "replay", "runs/a", "--json", "found.json")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "7 recorded iterations confirmed, every figure to the bit"
    assert lines[-1].startswith("replay: iterations 0 to 13: iteration 7: update")
    assert "of conv/0 was recorded as" in lines[-1]
    told = json.loads(Path("found.json").read_text())
    assert told["verdict"] == lines[-1]
    assert (told["difference"]["iteration"], told["difference"]["parameter"]) == (7, "conv/0")


def test_what_cannot_be_replayed_is_told_in_one_line(workdir: Path, cli: Callable) -> None:
    write_run(workdir, random_seed=None)
    train(3)
    assert "began with random weights and the solver file has no random_seed" in failure(
        cli("audit", "replay", "runs/a")
    )
    assert "give an audit or a run directory" in failure(cli("audit", "replay", "runs/b"))
    shutil.rmtree("runs")
    write_run(workdir)
    train(9)
    assert "--from: got 9; expected at most --to 8" in failure(
        cli("audit", "replay", "runs/a", "--from", "9")
    )
    (state,) = workdir.glob("*_iter_8.solverstate")
    train(3, str(state))
    content = state.read_bytes()
    state.write_bytes(content + b"\0")
    assert "solver_iter_8.solverstate: has changed since: its SHA-256 is" in failure(
        cli("audit", "replay", "runs/a")
    )
    state.unlink()
    assert "is not there" in failure(cli("audit", "replay", "runs/a"))
    done = cli("audit", "replay", "runs/a", "--to", "7")  # the first session needs no snapshot
    assert done.returncode == 0, done.stderr


def test_data_that_are_gone_are_told_in_one_line(workdir: Path, cli: Callable) -> None:
    net = SMALL.replace('type: "DummyData"', 'type: "HDF5Data"').replace(
        "dummy_data_param", 'hdf5_data_param { source: "list.txt" batch_size: 6 } dummy_data_param'
    )
    h5py = pytest.importorskip("h5py")
    with h5py.File("data.h5", "w") as file:
        file["data"] = np.ones((6, 2, 7, 7), np.float32)
        file["target"] = np.ones((6, 3), np.float32)
    Path("list.txt").write_text("data.h5\n")
    write_run(workdir, net)
    train(3)
    assert cli("audit", "replay", "runs/a").returncode == 0
    Path("list.txt").unlink()
    words = "cannot be trained again: its solver.prototxt: Caffe cannot build its nets"
    assert words in failure(cli("audit", "replay", "runs/a"))
