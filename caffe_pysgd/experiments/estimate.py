"""How much time and disk a sweep will take, from a few iterations of its base run."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from caffe_pysgd.errors import UserError
from caffe_pysgd.experiments.child import Child, write_run
from caffe_pysgd.experiments.progress import LOG
from caffe_pysgd.experiments.sweep_file import Sweep, threads
from caffe_pysgd.run.overrides import put

_ITERATIONS = 12

_TIMED = re.compile(r"^I\d{4} (\d+):(\d+):([\d.]+) .*\] (.*)$", re.MULTILINE)


def estimate(sweep: Sweep, runs: int, jobs: int) -> str:
    """Return in words what the runs of a sweep will take.

    A run is trained for a few iterations, with its test and one snapshot, in a temporary folder.

    Args:
        sweep: what will be swept.
        runs: how many; 0 where that is not known.
        jobs: how many at once.

    Raises:
        UserError: the base run fails.
    """
    solver: Dict[str, Any] = {"display": 1, "snapshot": 0, "snapshot_after_train": True}
    content = sweep.run_content({})
    put(content, "update.max_iter", _ITERATIONS)
    for name, value in solver.items():
        put(content, f"solver.{name}", value)
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as name:
        folder, started = Path(name), time.monotonic()
        write_run(folder, content, sweep.seeds[0])
        child = Child(folder, sweep.options.host, threads(jobs))
        child.process.wait()
        seconds = time.monotonic() - started
        if child.process.returncode != 0:
            raise UserError(f"{sweep.source}: the base run fails: {child.failure()}")
        timed = _TIMED.findall((folder / LOG).read_text(errors="replace"))
        snapshot = sum(file.stat().st_size for file in (folder / "snapshots").glob("*"))
        record = sum(f.stat().st_size for f in folder.glob("*") if f.is_file()) / _ITERATIONS
    iteration, test = _seconds(timed)
    one = seconds + (sweep.max_iter - _ITERATIONS) * iteration + sweep.tests * test
    disk = sweep.snapshots * snapshot + sweep.max_iter * record
    said = f"a run takes about {_time(one)} and {_size(disk)}"
    if runs:
        together = one * -(-runs // jobs)
        said = (
            f"{runs} runs, {jobs} at once: about {_time(together)} and {_size(runs * disk)}; {said}"
        )
    return f"{said} (from {_ITERATIONS} iterations of the base run)"


def _seconds(timed: List[Any]) -> Any:
    """Return the seconds of an iteration and of a test, from the lines of Caffe's log."""
    moments = [(int(h) * 3600 + int(m) * 60 + float(s), what) for h, m, s, what in timed]
    shown = [at for at, what in moments if re.match(r"Iteration [1-9]\d* \(", what)]
    iterations = [later - at for at, later in zip(shown, shown[1:])]
    begun = [at for at, what in moments if "Testing net (#0)" in what]
    ended = [at for at, what in moments if "Test net output #0" in what]
    test = next((end - begun[0] for end in ended if begun and end >= begun[0]), 0.0)
    return sorted(iterations)[len(iterations) // 2] if iterations else 0.0, test


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    unit, name = next((u for u in _UNITS if count < 1000 * u[0]), _UNITS[-1])
    return f"{count / unit:.3g} {name}"


_UNITS = ((1e3, "kB"), (1e6, "MB"), (1e9, "GB"))
