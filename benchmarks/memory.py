"""How much memory an update takes beyond weights, diffs and history, beside the native solver's.

Measured in a process of its own, as the growth of its resident memory at the peak of two updates.
The history of the native solver is memory that it first uses in its first update; it is taken off.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, List

MB = 1e6


def measure_memory(width: int, rules: List[str]) -> Dict[str, Any]:
    """Return the extra MB by rule and by who updates, in two square layers of that width."""
    # So that arrays that are no more leave the process, whatever was allocated before.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    process = subprocess.run(
        [sys.executable, __file__, str(width), *rules],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: Dict[str, Any] = json.loads(process.stdout)
    return figures


def main() -> None:
    """Measure in this process."""
    from contestants import CAFFE, KERNELS, Problem
    from settings import RULES

    width, rules = int(sys.argv[1]), sys.argv[2:]
    compiling = get_context("spawn").Process(target=_update_once, args=(rules[0],))
    compiling.start()
    compiling.join()
    measured: Dict[str, Dict[str, float]] = {}
    loading: Dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        for rule in rules:
            # With a few values first, for what is loaded once for all.
            growths = _update_once(rule)
            loading = loading or growths
            problem = Problem(RULES[rule], width, Path(folder))
            history = 4 * problem.values * RULES[rule].slots / MB
            measured[rule] = {}
            for name, fill, update, _ in problem.contestants():
                if name == CAFFE or name in KERNELS:
                    fill()
                    growth = peak_growth(lambda update=update: [update() for _ in range(2)])
                    growth -= history if name == CAFFE else 0
                    measured[rule][name] = growth
    print(json.dumps({"values": problem.values, "loading": loading, "rules": measured}))


def _update_once(rule: str) -> Dict[str, float]:
    """Let everybody update a few values; return by how much the memory grew."""
    from contestants import Problem
    from settings import RULES

    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        contestants = Problem(RULES[rule], 3, Path(folder)).contestants()
        return {contestant.name: peak_growth(contestant.update) for contestant in contestants}


def peak_growth(action: Callable[[], object]) -> float:
    """Return by how many MB the resident memory was at most larger than before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    action()
    return round(_resident("VmHWM") - before, 3)


def _resident(which: str) -> float:
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / MB


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    main()
