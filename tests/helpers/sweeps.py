"""Small sweeps: a net that trains in a second, a test net, and the same data at every pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from caffe_pysgd.stock.snapshots import read_model
from helpers.nets import CONSTANT, write_solver

FIELDS: Dict[str, Any] = {
    "type": "SGD",
    "base_lr": 0.001,
    "momentum": 0.9,
    "max_iter": 60,
    "test_iter": 2,
    "test_interval": 20,
    "snapshot": 20,
    "display": 20,
}

GRID = """
base: base.yaml
sweep_dir: out
space:
  update.base_lr: [0.001, 0.0005]
  update.momentum: [0.9, 0.5]
objective: {score: loss, take: last}
"""


def write_sweep(workdir: Path, text: str = GRID, **fields: Any) -> Path:
    """Write a net, a solver, a base and a sweep into the working directory; return the sweep."""
    write_solver(workdir, CONSTANT, snapshot_prefix="unused", **{**FIELDS, **fields})
    (workdir / "base.yaml").write_text("solver: solver.prototxt\n")
    path = workdir / "sweep.yaml"
    path.write_text(text)
    return path


def weights(folder: Path) -> Dict[str, List[np.ndarray]]:
    """Return the weights of the net's own layers in the last snapshot of a run."""
    models = (folder / "snapshots").glob("*.caffemodel")
    last = max(models, key=lambda path: int(path.stem.rpartition("_")[2]))
    model = read_model(last)
    return {layer: list(model[layer]) for layer in model if not layer.startswith("pysgd")}


def same_bits(first: Path, second: Path) -> bool:
    """Return whether two runs ended with the same weights, bit by bit."""
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(
        x.tobytes() == y.tobytes() for layer in a for x, y in zip(a[layer], b[layer])
    )
