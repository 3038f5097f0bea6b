"""Recorded runs of the drop-in solver, for the tests of what reads an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Optional

import caffe_pysgd
from helpers.nets import SMALL, write_solver

AUDIT = Path("runs/a/audit.sqlite")

RUN = """
solver: solver.prototxt
run_dir: runs/a
update: {update}
snapshots: {{prefix: solver, overwrite: true}}
audit: {audit}
"""

# A module of the user's own, ``my_rules``, that leaves a file where it is imported.
MY_RULES = """
from pathlib import Path
import caffe_pysgd
Path("imported").write_text("")
class Plain(caffe_pysgd.UpdateRule):
    slots = ()
    def update(self, p):
        return p.rate * p.gradient
"""


def write_run(
    workdir: Path,
    net: str = SMALL,
    update: Optional[Dict[str, Any]] = None,
    audit: Optional[Dict[str, Any]] = None,
    **fields: Any,
) -> None:
    common = {"max_iter": 20, "snapshot": 8, "test_iter": [2], "test_interval": 6}
    write_solver(workdir, net, **{**common, **fields})
    text = RUN.format(update=json.dumps(update or {}), audit=json.dumps(audit or {}))
    (workdir / "run.yaml").write_text(text)


def train(iterations: int, snapshot: str = "", **changes: Any) -> None:
    """Train in this process, in the drop-in solver."""
    solver = caffe_pysgd.get_solver("run.yaml")
    if snapshot:
        solver.restore(snapshot)
    solver.step(iterations)
    for name, value in changes.items():
        setattr(solver, name, value)
    if changes:
        solver.step(iterations)
    solver.close()
