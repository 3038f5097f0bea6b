"""Draws the drift of manual_sgd.py: on a log scale, and below it a strip for an exact 0."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

COLORS = {
    "diffs not cleared": "#b35900",
    "history reset every time": "#8250df",
    "textbook": "#cf222e",
    "textbook, history in float64": "#d4626a",
    "lr_mult ignored": "#32383f",
    "diffs not cleared, diff *= lr": "#6e7781",
    "no mistake": "#57606a",
    "textbook, rounded once": "#1a7f37",
    "caffe-pysgd": "#0969da",
}
SUFFIXES = {"no mistake": " (momentum 0)"}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c959f",
    "text.color": "#1f2328",
    "axes.labelcolor": "#1f2328",
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "svg.hashsalt": "drift",  # the same file from the same figures
}
LABEL_GAP = 0.042  # between labels, as a part of the upper axes' height


def plot(drifts, path):
    """Draw the drift of each loop over the iterations into a file."""
    with plt.rc_context(STYLE):
        figure, (upper, strip) = plt.subplots(
            2,
            sharex=True,
            figsize=(9.6, 5.6),
            gridspec_kw={"height_ratios": [8, 1.3], "hspace": 0.06, "right": 0.745, "left": 0.09},
        )
        drifting = {label: d for label, d in drifts.items() if d.any()}
        exact = [label for label, d in drifts.items() if not d.any()]
        _draw_drifting(upper, drifting)
        _draw_exact(strip, exact, len(next(iter(drifts.values()))))
        figure.suptitle(
            "How far LeNet's weights are from those of solver.step()",
            x=0.09,
            y=0.945,
            ha="left",
            fontsize=13,
            fontweight="bold",
        )
        metadata = {"Date": None} if str(path).endswith(".svg") else None
        figure.savefig(path, facecolor="white", metadata=metadata, dpi=150)
        plt.close(figure)


def _draw_drifting(axes, drifts):
    axes.set_yscale("log")
    axes.set_ylabel("L2 norm of the difference")
    axes.grid(axis="y", color="#eaeef2")
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    ends = {}
    for label, distances in drifts.items():
        shown = np.where((distances > 0) & np.isfinite(distances), distances, np.nan)
        iterations = np.arange(1, len(shown) + 1)
        width = 2.2 if label == "textbook" else 1.4
        axes.plot(iterations, shown, color=COLORS[label], linewidth=width)
        last = np.flatnonzero(np.isfinite(shown))[-1]
        if last < len(shown) - 1:
            axes.plot(last + 1, shown[last], "x", color=COLORS[label], markersize=7)
            axes.annotate(
                f"{label}: diverges",
                (last + 1, shown[last]),
                (8, -3),
                textcoords="offset points",
                color=COLORS[label],
            )
        else:
            ends[label] = shown[last]
    _label_ends(axes, ends)


def _label_ends(axes, ends):
    """Write each label where its line ends, moved up as far as the label below needs."""
    axes.set_ylim(axes.get_ylim())  # settle the scale before measuring
    to_axes = (axes.transData + axes.transAxes.inverted()).transform
    below = -1.0
    for label, value in sorted(ends.items(), key=lambda end: end[1]):
        height = max(to_axes((1, value))[1] - 0.012, below + LABEL_GAP)
        weight = "bold" if label == "textbook" else "normal"
        axes.text(
            1.015,
            height,
            label,
            color=COLORS[label],
            transform=axes.transAxes,
            fontweight=weight,
        )
        below = height


def _draw_exact(axes, labels, iterations):
    axes.set_facecolor("#f6f8fa")
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.set_yticks([])
    axes.set_ylabel("exactly 0", rotation=0, ha="right", va="center", labelpad=8)
    axes.set_xlabel("iteration")
    axes.set_xlim(0, iterations * 1.005)
    for height, label in enumerate(reversed(labels)):
        weight = "bold" if label == "caffe-pysgd" else "normal"
        axes.hlines(height, 1, iterations, color=COLORS[label], linewidth=2.2)
        axes.annotate(
            label + SUFFIXES.get(label, ""),
            (1.015, height),
            xycoords=("axes fraction", "data"),
            va="center",
            color=COLORS[label],
            fontweight=weight,
            annotation_clip=False,
        )
