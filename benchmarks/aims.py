"""Which of the aims for speed are met, in one table made from the raw figures.

    python benchmarks/aims.py FOLDER

The folder holds the JSON files that the other benchmarks write; `make bench-full` makes them. What
was not measured is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

from contestants import CAFFE, FAST, FUSED, RESTED
from rich.table import Table
from tables import console, median_ratio

LARGE = 33.6e6
SMALL = (0.1e6, 0.4e6, 1e6)
STOCK = "stock"


class Aim(NamedTuple):
    """A figure that is aimed at.

    Attributes:
        name: of what.
        asked: the figure.
        at_least: whether more is better.
        measured: the figure that was found.
    """

    name: str
    asked: float
    at_least: bool
    measured: float

    @property
    def met(self) -> bool:
        """Whether it is reached, in the two decimals that are told."""
        found = round(self.measured, 2)
        return found >= self.asked if self.at_least else found <= self.asked


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--markdown", action="store_true", help="as a table for a page")
    arguments = parser.parse_args()
    found, missing = read(arguments.folder)
    if arguments.markdown:
        print("| Aim | asked | measured | |\n| --- | --- | --- | --- |")
        for aim in found:
            print(f"| {' | '.join(cells(aim))} |")
    else:
        table = Table(title="aims")
        for column in ("aim", "asked", "measured", ""):
            table.add_column(column, justify="left" if column == "aim" else "right")
        for aim in found:
            table.add_row(*cells(aim))
        console().print(table)
    print(f"\n{sum(aim.met for aim in found)} of {len(found)} aims are met")
    for name in missing:
        print(f"not measured: {name}.json")


def cells(aim: Aim) -> Tuple[str, str, str, str]:
    """Return an aim as one reads it."""
    bound = "at least" if aim.at_least else "at most"
    return aim.name, f"{bound} {aim.asked:g}", f"{aim.measured:.2f}", "yes" if aim.met else "no"


def read(folder: Path) -> Tuple[List[Aim], List[str]]:
    """Return the aims of all that was measured, and what was not."""
    found: List[Aim] = []
    missing = []
    for name, aims_of in AIMS.items():
        path = folder / f"{name}.json"
        if path.exists():
            found += aims_of(json.loads(path.read_text()))
        else:
            missing.append(name)
    return found, missing


def of_update(figures: Dict[str, Any]) -> Iterator[Aim]:
    """Right after backward against rested, exact powers against inexact ones, small nets."""
    large = _of_size(figures, LARGE)
    for rule, its in large.items():
        seconds = its["seconds"][FUSED]
        slower = median_ratio(seconds, its["seconds"][FUSED + RESTED])
        yield Aim(f"{rule}, right after backward / rested", 1.1, False, slower)
        longest = max(seconds) / statistics.median(seconds)
        yield Aim(f"{rule}, longest update / median", 1.5, False, longest)
    exact = {"Adam": 1.15, "RMSProp": 1.15, "AdaGrad": 1.3, "AdaDelta": 1.3}
    for rule, asked in exact.items():
        if rule in large:
            its = large[rule]["seconds"]
            yield Aim(f"{rule}, exact / inexact", asked, False, median_ratio(its[FUSED], its[FAST]))
    for values in SMALL:
        its = _of_size(figures, values).get("SGD", {}).get("seconds")
        if its:
            name = f"SGD, {values / 1e6:g} million values, Caffe / ours"
            yield Aim(name, 1.0, True, median_ratio(its[CAFFE], its[FUSED]))


def _of_size(figures: Dict[str, Any], values: float) -> Dict[str, Any]:
    near = [size for size in figures["sizes"] if abs(size["values"] / values - 1) < 0.1]
    rules: Dict[str, Any] = near[0]["rules"] if near else {}
    return rules


def of_beyond(figures: Dict[str, Any]) -> Iterator[Aim]:
    """Rules that Caffe never got: their time per byte."""
    for rule, ratio in figures["per byte"].items():
        if rule != "SGD":
            asked = 1.6 if rule in ("LARS", "LAMB") else 1.15
            yield Aim(f"{rule}, time per byte / SGD's", asked, False, ratio)


def of_small(figures: Dict[str, Any]) -> Iterator[Aim]:
    """Many small blobs."""
    for caches, seconds in figures["resnet"].items():
        ratio = median_ratio(seconds["caffe"], seconds["fused"])
        yield Aim(f"SGD, 200 blobs of 1,000 values, caches {caches}, Caffe / ours", 1, True, ratio)


def of_runs(figures: Dict[str, Any]) -> Iterator[Aim]:
    """Whole runs; LeNet's with one thread of BLAS."""
    nets = figures["nets"]
    if "lenet" in nets:
        seconds = nets["lenet"]["seconds"]
        for host, asked in (("in-net", 1.0), ("solve", 1.01)):
            ratio = median_ratio(seconds[host], seconds[STOCK])
            yield Aim(f"LeNet, {host} / stock", asked, False, ratio)
    if "alexnet" in nets:
        seconds = nets["alexnet"]["seconds"]
        ratio = median_ratio(seconds["in-net"], seconds["solve"])
        yield Aim("AlexNet's size, Adam, in-net / solve", 1.02, False, ratio)


def of_audit(figures: Dict[str, Any]) -> Iterator[Aim]:
    """The audit's figures."""
    alone = figures["update alone"]
    cost = median_ratio(alone["audit"], alone["none"]) - 1
    yield Aim("30 million values, what the audit adds to an update", 0.35, False, cost)


def of_start(figures: Dict[str, Any]) -> Iterator[Aim]:
    """Starting, in seconds beyond stock's, Python's or pycaffe's."""
    asked = {
        "--help": 0.15,
        "import caffe_pysgd": 0.15,
        "caffe-pysgd train, first": 0.6,
        "caffe-pysgd train, second": 0.3,
        "get_solver(X).step(1), first": 2.0,
    }
    for name, seconds in asked.items():
        found = statistics.median(figures["starts"][name]["wall beyond"])
        yield Aim(f"start of {name}, seconds beyond what it starts", seconds, False, found)


def of_ranks(figures: Dict[str, Any]) -> Iterator[Aim]:
    """Two ranks against two BLAS threads, and against two processes that exchange nothing."""
    for net, seconds in figures["nets"].items():
        ranks = seconds["2 ranks"]
        yield Aim(
            f"{net}, 2 threads / 2 ranks", 1.5, True, median_ratio(seconds["2 threads"], ranks)
        )
        yield Aim(f"{net}, limit / 2 ranks", 0.97, True, median_ratio(seconds["limit"], ranks))


AIMS: Dict[str, Callable[[Dict[str, Any]], Iterator[Aim]]] = {
    "update": of_update,
    "beyond": of_beyond,
    "small": of_small,
    "runs_lenet": of_runs,
    "runs_alexnet": of_runs,
    "audit": of_audit,
    "start": of_start,
    "ranks": of_ranks,
}


if __name__ == "__main__":
    main()
