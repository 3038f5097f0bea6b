"""How fast one update is: the kernels of this project, the native solver's, and PyTorch's.

For each rule and number of values, all who compute the update take turns, in one process (PyTorch
in one beside it), so that what else the machine does hits all of them alike. A figure is the median
over the rounds; a ratio is the median of the ratios within each round. Before each turn the
gradients are fresh, a copy on all cores sweeps the caches and measures the memory's bandwidth, and
a backward pass comes right before the update, as in training: the BLAS's threads still spin.

    python benchmarks/update.py [--values 4e6 33.6e6] [--rules SGD Adam] [--torch] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

os.environ.setdefault("GLOG_minloglevel", "2")

from contestants import Problem
from machine import describe
from memory import measure_memory
from raw_figures import write_figures
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from settings import RULES, Settings
from tables import print_machine, print_memory, print_update
from torch_venv import TorchPeer, torch_python
from turns import PAUSE, take_turns

VALUES = (0.1e6, 0.4e6, 1e6, 4e6, 33.6e6, 120e6)
FEW_ROUNDS_FROM = 5e7  # with so many values an update is long enough to be timed in few rounds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=float, nargs="+", default=VALUES, metavar="N")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), metavar="RULE")
    parser.add_argument("--pairs", type=int, default=9, help="rounds (a third from 50 million on)")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds before each turn")
    parser.add_argument(
        "--torch", nargs="?", const="", metavar="PYTHON", help="and PyTorch, in .venv-torch"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    arguments = parser.parse_args()
    result: Dict[str, Any] = {"machine": describe(), "sizes": []}
    peer = None
    if arguments.torch is None:
        print("PyTorch is left out; --torch makes .venv-torch for it, and compares")
    else:
        peer = TorchPeer(torch_python(arguments.torch))
        result["machine"]["torch"] = peer.about["version"]
        result["machine"]["threads of PyTorch"] = str(peer.about["threads"])
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as folder:
        for values in arguments.values:
            size = measure_size(
                values, arguments.rules, arguments.pairs, arguments.pause, peer, Path(folder)
            )
            print_update(size)
            result["sizes"].append(size)
            write_figures(arguments.json, result)
    if peer:
        peer.close()
    values = sorted(arguments.values)[len(arguments.values) // 2]
    result["memory"] = measure_memory(width_for(values), arguments.rules)
    print_memory(result["memory"])
    write_figures(arguments.json, result)


def width_for(values: float) -> int:
    """Return the width of two square layers with about that many values."""
    return max(1, round((values / 2) ** 0.5))


def measure_size(
    values: float,
    rules: List[str],
    pairs: int,
    pause: float,
    peer: Optional[TorchPeer],
    folder: Path,
) -> Dict[str, Any]:
    """Measure all rules at one number of values."""
    rounds = pairs if values < FEW_ROUNDS_FROM else -(-pairs // 3)
    width = width_for(values)
    size: Dict[str, Any] = {"values": 2 * width * (width + 1), "rules": {}}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=len(rules) * (rounds + 1))
        for name in rules:
            progress.update(task, description=f"{name}, {size['values'] / 1e6:.1f} million values")
            advance = lambda: progress.advance(task)  # noqa: E731
            size["rules"][name] = measure_rule(
                RULES[name], width, rounds, pause, peer, folder, advance
            )
    return size


def measure_rule(
    settings: Settings,
    width: int,
    rounds: int,
    pause: float,
    peer: Optional[TorchPeer],
    folder: Path,
    advance: Callable[[], None],
) -> Dict[str, Any]:
    """Return what ``take_turns`` does, of all who can compute a rule."""
    gc.collect()  # the problem before this one may be large
    problem = Problem(settings, width, folder)
    contestants = problem.contestants()
    if peer:
        contestants += problem.torch_contestants(peer)
    return take_turns(contestants, rounds, advance, problem.backward, pause)


if __name__ == "__main__":
    main()
