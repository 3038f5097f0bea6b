"""Pictures of what update.py measured, from the raw figures that it wrote.

    python benchmarks/plots.py FIGURES.json FOLDER

Needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Dict, List

import matplotlib

matplotlib.use("svg")

from contestants import CAFFE, FAST, FUSED, TORCH
from matplotlib import pyplot
from settings import RULES
from tables import median_ratio

# Who is shown, and how: what the legend calls it, its colour.
SHOWN = {
    FUSED: ("fused, exact", "#2f6f9f"),
    FAST: ("fused, exact: false", "#8fbcdb"),
    TORCH + "fused": ("PyTorch, fused", "#c9703c"),
    TORCH + "default": ("PyTorch, default", "#ecc19c"),
}
CAFFES = ("Caffe", "#6b6b6b")
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "svg.hashsalt": "caffe-pysgd",  # the same figures give the same file
}
LABEL: Dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
HEIGHT = 0.8 / len(SHOWN)  # of a bar
MAIN_SIZE = 33.6e6


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    sizes: List[Dict[str, Any]] = json.loads(arguments.figures.read_text())["sizes"]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        main_size = min(sizes, key=lambda size: abs(size["values"] - MAIN_SIZE))
        save(speed_ups(main_size), arguments.folder / "performance-rules.svg")
        save(growth(sizes), arguments.folder / "performance-growth.svg")


def save(figure: Any, path: Path) -> None:
    """Write a picture."""
    figure.savefig(
        path, facecolor="white", bbox_inches="tight", pad_inches=0.1, metadata={"Date": None}
    )
    pyplot.close(figure)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def speed_ups(size: Dict[str, Any]) -> Any:
    """Draw how many times faster than Caffe everybody is, rule by rule."""
    rules = [rule for rule in RULES if rule in size["rules"]]
    figure, axes = pyplot.subplots(figsize=(8, 0.85 * len(rules) + 1))
    for row, rule in enumerate(rules):
        seconds = size["rules"][rule]["seconds"]
        names = [name for name in SHOWN if name in seconds]
        for number, name in enumerate(names):
            ratio, y = median_ratio(seconds[CAFFE], seconds[name]), row + HEIGHT * number
            y -= HEIGHT * (len(names) - 1) / 2
            label, colour = SHOWN[name]
            axes.barh(y, ratio, 0.9 * HEIGHT, color=colour, label=label)
            axes.annotate(f"{ratio:.1f}", (ratio, y), (3, 0), **LABEL)
    axes.axvline(1, color=CAFFES[1], linewidth=1)
    axes.set_yticks(range(len(rules)))
    axes.set_yticklabels(
        [rule if RULES[rule].is_native else f"{rule}\n(Caffe's Adam is 1)" for rule in rules]
    )
    axes.invert_yaxis()
    axes.set_xlabel(
        f"times faster than Caffe's apply_update() (1), {size['values'] / 1e6:.1f} million values"
    )
    figure.tight_layout()
    _legend(figure)
    return figure


def growth(sizes: List[Dict[str, Any]]) -> Any:
    """Draw the time of an update against the number of values, for two rules."""
    rules = [rule for rule in ("SGD", "Adam") if all(rule in size["rules"] for size in sizes)]
    figure, all_axes = pyplot.subplots(
        1, max(1, len(rules)), figsize=(8, 3.6), sharey=True, squeeze=False
    )
    for axes, rule in zip(all_axes[0], rules):
        shown = {CAFFE: CAFFES, **SHOWN}
        for name in (name for name in shown if name in sizes[0]["rules"][rule]["seconds"]):
            label, colour = shown[name]
            values = [size["values"] for size in sizes]
            times = [
                1000 * statistics.median(size["rules"][rule]["seconds"][name]) for size in sizes
            ]
            axes.loglog(values, times, "o-", color=colour, label=label, markersize=4)
        axes.set_title(rule, fontsize=10)
        axes.set_xlabel("values")
        axes.grid(True, color="#eeeeee")
    all_axes[0][0].set_ylabel("ms of one update")
    figure.tight_layout()
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    by_label: Dict[str, Any] = {}
    for axes in figure.axes:
        by_label.update(zip(*reversed(axes.get_legend_handles_labels())))
    labels = [label for label, _ in (CAFFES, *SHOWN.values()) if label in by_label]
    place: Dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "frameon": False}
    figure.legend([by_label[x] for x in labels], labels, ncol=len(labels), fontsize=9, **place)


if __name__ == "__main__":
    main()
