"""How long a start takes: stock `caffe train`, and every host, the first time and the second.

A start is a whole run of one iteration, without test and snapshot. The first finds an empty cache,
the second what the first kept there; both find the programs in memory. Everybody takes a turn in
each round; what is told is seconds, and seconds beyond the one that is named.

    python benchmarks/start.py [--solver X] [--pairs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Dict, List, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from machine import describe
from raw_figures import write_figures
from rich.table import Table
from tables import console, print_machine

from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock import pycaffe

LENET = Path("examples/mnist/lenet_solver.prototxt")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
OURS = [sys.executable, "-m", "caffe_pysgd"]
IMPORT, STOCK, STEP = "python, import caffe", "caffe train", "get_solver(X).step(1)"


class Start(NamedTuple):
    """A start.

    Attributes:
        name: what the table calls it.
        command: what is started.
        beyond: what it is compared with.
        keeps: whether there is a cache to be found empty, and then filled.
    """

    name: str
    command: List[str]
    beyond: str = ""
    keeps: bool = False


def main() -> None:
    """Measure and print."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # orphans are waited for, and count
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solver", type=Path, default=LENET, help="LeNet, if not given")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    arguments = parser.parse_args()
    result = {"machine": describe()}
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        figures = measure(starts(arguments.solver, Path(folder)), arguments.pairs, Path(folder))
    print_starts(figures)
    write_figures(arguments.json, {**result, "starts": figures})


def starts(source: Path, folder: Path) -> List[Start]:
    """Return what is started."""
    run = resolve(source, iterations=1)
    nothing = {"test_iter": [], "test_state": [], "test_interval": 0, "snapshot": 0}
    run = run.with_solver(**nothing, snapshot_after_train=False)
    x, run_dir = str(run.write_stock(folder)), f"--run-dir={folder / 'run'}"
    host = "import sys, caffe_pysgd; caffe_pysgd.{}(sys.argv[1]).step(1)"
    python = [sys.executable, "-c"]
    return [
        Start("python", [*python, ""]),
        Start("--help", [*OURS, "--help"], "python"),
        Start("import caffe_pysgd", [*python, "import caffe_pysgd"], "python"),
        Start(STOCK, [str(pycaffe.binary()), "train", f"--solver={x}"]),
        Start("caffe-pysgd train", [*OURS, "train", x, run_dir], STOCK, True),
        Start("caffe-pysgd solve", [*OURS, "solve", x, run_dir], STOCK, True),
        Start(IMPORT, [*python, "import caffe"]),
        Start(STEP, [*python, host.format("get_solver"), x], IMPORT, True),
        Start("take_over(X).step(1)", [*python, host.format("take_over"), x], IMPORT, True),
    ]


def measure(started: List[Start], pairs: int, folder: Path) -> Dict[str, Dict[str, List[float]]]:
    """Return the seconds of each, of the wall's clock and of processors, and those beyond."""
    figures: Dict[str, Dict[str, List[float]]] = {}
    for number in range(pairs + 1):
        seen: Dict[str, List[float]] = {}
        for start in started:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for which in (", first", ", second") if start.keeps else ("",):
                took = seconds(start.command, folder / "cache")
                seen[start.name + which] = took
                if number:  # the first round brings files into the page cache
                    its = figures.setdefault(start.name + which, {})
                    other = seen.get(start.beyond)
                    for kind, name in enumerate(("wall", "cpu")):
                        its.setdefault(name, []).append(round(took[kind], 4))
                        if other:
                            beyond = round(took[kind] - other[kind], 4)
                            its.setdefault(f"{name} beyond", []).append(beyond)
    return figures


def seconds(command: List[str], cache: Path) -> List[float]:
    """Start something; return how long it took, and how much of processors' time."""
    environment = {**pycaffe.binary_environment(), "CAFFE_PYSGD_CACHE": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles all of the sources
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - began
    with suppress(ChildProcessError):  # what a process left behind that became another
        while os.wait():
            pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"{command}: {pycaffe.failure_reason(process.stderr)}")
    return [took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime]


def print_starts(figures: Dict[str, Dict[str, List[float]]]) -> None:
    """Print the medians."""
    table = Table(title="seconds of a start (beyond: python, caffe train, or import caffe)")
    for column in ("start", "wall", "wall beyond", "cpu", "cpu beyond"):
        table.add_column(column, justify="left" if column == "start" else "right")
    for name, its in figures.items():
        cells = (its.get(kind) for kind in ("wall", "wall beyond", "cpu", "cpu beyond"))
        table.add_row(name, *(f"{statistics.median(cell):.3f}" if cell else "" for cell in cells))
    console().print(table)


if __name__ == "__main__":
    main()
