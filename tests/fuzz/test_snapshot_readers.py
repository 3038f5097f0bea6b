"""A snapshot of any kind is refused in one short line, or Caffe loads it and trains on."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
from helpers.failures import refusal_of_file
from helpers.nets import NETS, write_solver
from helpers.places import PROJECT

import caffe_pysgd
from caffe_pysgd.stock.snapshots import read_solver_state

READER = PROJECT / "tests/helpers/damaged_snapshots.py"
ENDINGS = {"state": "solverstate", "model": "caffemodel"}


def unexpected(folder: Path, kind: str, hdf5: bool, count: int) -> List[str]:
    """Return what reading so many damaged files led to besides refusals and what Caffe loads."""
    fields: Any = {"snapshot_format": "HDF5"} if hdf5 else {}
    path = write_solver(folder, NETS["normalized"], type="Adam", **fields)
    solver = caffe_pysgd.get_solver(path)
    solver.step(1)
    solver.snapshot()
    sound = [str(file) for file in folder.glob("*_iter_1*") if ENDINGS[kind] in file.name]
    child = subprocess.run(
        [sys.executable, str(READER), kind, str(path), str(count), *sound],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    if child.returncode:
        last = (folder / "last").read_text()
        return [f"{last}: ended with {child.returncode}: {child.stderr[-300:]}"]
    result = json.loads(child.stdout.splitlines()[-1])
    assert result["loaded"] > count // 100  # else the check refuses what is sound
    found: List[str] = result["found"]
    return found


KINDS = [("state", False), ("state", True), ("model", False), ("model", True)]


@pytest.mark.parametrize("kind, hdf5", KINDS)
def test_damaged_files_are_refused(workdir: Path, kind: str, hdf5: bool) -> None:
    assert unexpected(workdir, kind, hdf5, 60 if hdf5 else 200) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind, hdf5", KINDS)
def test_ten_thousand_damaged_files_are_refused(workdir: Path, kind: str, hdf5: bool) -> None:
    assert unexpected(workdir, kind, hdf5, 10_000) == []


@pytest.mark.slow
def test_a_file_that_hdf5_searches_without_an_end_is_refused(workdir: Path) -> None:
    kept = PROJECT / "tests/fuzz/corpus/endless.solverstate.h5.gz"
    path = workdir / "endless.solverstate.h5"
    path.write_bytes(gzip.decompress(kept.read_bytes()))
    assert "is not a complete Caffe" in refusal_of_file(read_solver_state, path)
