"""The diffs that the drop-in solver leaves are the update, as Caffe's are: in blobs and files."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import pytest
from helpers.nets import NETS
from helpers.solvers import follow, write_pair

from caffe_pysgd import get_solver
from caffe_pysgd.stock.snapshots import read_model_message


def test_the_diffs_after_a_step_are_the_update_as_in_caffe(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    diffs = []
    for solver in follow(stock, ours, get_solver, 3):
        blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
        diffs.append([blob.diff.tobytes() for blob in blobs])
        assert any(blob.diff.any() for blob in blobs)
    assert diffs[0] == diffs[1]


@pytest.mark.parametrize("net", ["small", "normalized"])
def test_snapshot_diff_is_written_as_caffe_writes_it(workdir: Path, net: str) -> None:
    stock, ours = write_pair(workdir, NETS[net], snapshot_diff=True)
    for solver in follow(stock, ours, get_solver, 3):
        solver.snapshot()
    diffs = []
    for path in (stock, ours):
        model = read_model_message(path.parent / "solver_iter_3.caffemodel")
        blobs = [(layer.name, blob) for layer in model.layer for blob in layer.blobs]
        diffs.append([(name, np.array(blob.diff, np.float32).tobytes()) for name, blob in blobs])
    assert diffs[0] == diffs[1]
    assert any(np.frombuffer(diff, np.float32).any() for _, diff in diffs[0])


def test_snapshot_diff_in_hdf5_is_written_as_caffe_writes_it(workdir: Path) -> None:
    h5py = pytest.importorskip("h5py")
    stock, ours = write_pair(workdir, snapshot_diff=True, snapshot_format="HDF5")
    for solver in follow(stock, ours, get_solver, 3):
        solver.snapshot()
    found = []
    for path in (stock, ours):
        with h5py.File(path.parent / "solver_iter_3.caffemodel.h5", "r") as file:
            datasets: Dict[str, bytes] = {}
            file.visititems(
                lambda name, item, into=datasets: (
                    into.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None
                )
            )
            found.append(datasets)
    assert found[0] == found[1]
    assert any(name.startswith("diff/conv/") for name in found[0])
