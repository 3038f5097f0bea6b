"""``audit shadow``: what it says, writes and leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import caffe
from helpers.failures import failure
from helpers.nets import write_solver
from helpers.solvers import snapshot_name


def test_a_native_training_does_not_diverge(cli: Any, workdir: Path) -> None:
    path = write_solver(workdir, weight_decay=0.02, clip_gradients=2, iter_size=2)
    before = sorted(workdir.rglob("*"))
    process = cli("audit", "shadow", path.name, "--iterations=6")
    assert process.returncode == 0, process.stderr
    values = 7 * 1514  # the weights after each iteration, and the history
    last = process.stdout.splitlines()[-1]
    assert last == f"shadow: 0 of {values} values differ, max 0 ulp, after 6 iterations"
    assert sorted(workdir.rglob("*")) == before


def test_another_rounding_is_found(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    Path("run.yaml").write_text("solver: solver.prototxt\nupdate: {kernels: numpy}\n")
    process = cli("audit", "shadow", "run.yaml", "--iterations=20", "--json=out/found.json")
    assert process.returncode == 1, process.stderr
    found = json.loads(Path("out/found.json").read_text())
    assert 0 < found["differ"] < found["values"]
    divergence = found["divergence"]
    assert float.fromhex(divergence["found_hex"]) == divergence["found"] != divergence["expected"]
    assert f"{divergence['parameter']}, index {divergence['index']}" in process.stdout


def test_it_goes_on_from_a_snapshot(cli: Any, workdir: Path) -> None:
    path = write_solver(workdir, snapshot_format="HDF5")
    solver = caffe.get_solver(str(path))
    solver.step(3)
    solver.snapshot()
    state = snapshot_name(path, 3, ".h5")
    process = cli("audit", "shadow", path.name, "--iterations=5", f"--snapshot={state}")
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("max 0 ulp, after 2 iterations\n")
    assert failure(
        cli("audit", "shadow", path.name, "--iterations=3", f"--snapshot={state}")
    ).endswith("nothing would be compared; give --iterations N, more than 3")
