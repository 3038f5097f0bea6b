"""The tables that the benchmarks print."""

from __future__ import annotations

import statistics
from typing import Any, Dict, List

from contestants import (
    CAFFE,
    FAST,
    FIGURES,
    FUSED,
    KERNELS,
    LEAVES_UPDATE,
    LEAVES_ZEROS,
    RESTED,
    TORCH,
)
from rich.console import Console
from rich.table import Table
from settings import RULES, arrays_touched

TIMED = (CAFFE, *KERNELS, TORCH + "fused", TORCH + "default")

Figures = Dict[str, List[float]]


def console() -> Console:
    """Return where tables go: as wide as they are, wherever that is."""
    return Console(width=max(132, Console().width))


def median_ratio(a: List[float], b: List[float]) -> float:
    """Return the median of the ratios, pair by pair."""
    return statistics.median(x / y for x, y in zip(a, b))


def share_of_bandwidth(rule: str, values: int, figures: Dict[str, Figures], name: str) -> float:
    """Return what share of a copy's bytes per second an update comes to."""
    arrays = arrays_touched(RULES[rule].slots, leaves_anything=name in (FUSED, FAST))
    rates = [4 * arrays * values / seconds for seconds in figures["seconds"][name]]
    return median_ratio(rates, figures["bandwidth"][name])


def in_millions(values: int) -> str:
    """Return a number of values for a title."""
    return f"{values / 1e6:.1f} million values" if values >= 1e5 else f"{values:,} values"


def print_machine(machine: Dict[str, str]) -> None:
    """Print what the figures depend on."""
    console().print("; ".join(f"{name} {value}" for name, value in machine.items()), soft_wrap=True)


def print_update(size: Dict[str, Any]) -> None:
    """Print what was measured at one number of values."""
    million = in_millions(size["values"])
    times = Table(
        title=f"{million}: ms of one update (and how many times faster than Caffe's apply_update())"
    )
    times.add_column("rule")
    for name in TIMED:
        times.add_column(name.replace(TORCH, "PyTorch "), justify="right")
    fused = Table(title=f"{million}: fused, exact / exact: false")
    fused.add_column("rule")
    for column in (
        "PyTorch's fused",
        "PyTorch's default",
        "a copy's bandwidth",
        "leaving zeros, ms",
        "leaving the update, ms",
        "with figures, ms",
        "of the time rested",
        "longest of the median",
    ):
        fused.add_column(column, justify="right")
    for rule, figures in size["rules"].items():
        seconds, settings = figures["seconds"], RULES[rule]
        title = rule if settings.is_native else f"{rule} (Caffe: {settings.solver_type})"
        times.add_row(title, *(_time(seconds, name) for name in TIMED))
        names = [name for name in (FUSED, FAST) if name in seconds]
        shares = [share_of_bandwidth(rule, size["values"], figures, name) for name in names]
        fused.add_row(
            rule,
            " / ".join(_against(seconds, TORCH + "fused", name) for name in names),
            " / ".join(_against(seconds, TORCH + "default", name) for name in names),
            " / ".join(f"{100 * share:.0f} %" for share in shares),
            " / ".join(_milliseconds(seconds, name + LEAVES_ZEROS) for name in names),
            " / ".join(_milliseconds(seconds, name + LEAVES_UPDATE) for name in names),
            _milliseconds(seconds, FUSED + FIGURES),
            " / ".join(_against(seconds, name, name + RESTED) for name in names),
            " / ".join(f"{_longest(seconds[name]):.2f}x" for name in names),
        )
    console().print(times, fused)


def _time(seconds: Figures, name: str) -> str:
    if name not in seconds:
        return "-"
    if name == CAFFE:
        return _milliseconds(seconds, name)
    return f"{_milliseconds(seconds, name)} ({median_ratio(seconds[CAFFE], seconds[name]):.2f}x)"


def _milliseconds(seconds: Figures, name: str) -> str:
    if name not in seconds:
        return "-"
    milliseconds = 1000 * statistics.median(seconds[name])
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _against(seconds: Figures, other: str, who: str) -> str:
    return f"{median_ratio(seconds[other], seconds[who]):.2f}x" if other in seconds else "-"


def _longest(seconds: List[float]) -> float:
    return max(seconds) / statistics.median(seconds)


def print_memory(memory: Dict[str, Any]) -> None:
    """Print what updates take beyond weights, diffs and history."""
    table = Table(
        title=f"{in_millions(memory['values'])} ({4 * memory['values'] / 1e6:.0f} MB): "
        "MB beyond weights, diffs and history, at the peak"
    )
    names = (CAFFE, *KERNELS)
    for column in ("rule", *names):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for rule, extra in memory["rules"].items():
        table.add_row(rule, *(f"{extra[name]:.1f}" if name in extra else "-" for name in names))
    console().print(table)
    loading = memory["loading"]
    console().print(f"To load the compiled code takes {loading[FUSED]:.0f} MB, once.")
