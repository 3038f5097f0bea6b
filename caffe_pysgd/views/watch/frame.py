"""What ``watch`` draws: one reading of an audit as a frame of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, List, Optional

import numpy as np
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from caffe_pysgd.views.watch.reading import ParameterNow, Reading

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR, _LOWEST, _HIGHEST = 12, -6.0, 0.0  # characters, and powers of ten, of a ratio's bar
_OTHER_LINES = 13
_SPARKS = 40
_STILL = 5.0  # seconds without anything new after which it is said


def frame(reading: Reading, height: int) -> RenderableType:
    """Return a reading as text.

    Args:
        reading: what to draw.
        height: of the terminal, in lines; parameters that do not fit are left out, and counted.
    """
    parts: List[RenderableType] = [
        _heading(reading),
        progress(reading, reading.speed),
        Text(),
        _run(reading),
    ]
    if reading.parameters:
        parts += [Text(), _table(reading, max(3, height - _OTHER_LINES))]
    for alarm in reading.alarms[-3:]:
        parts.append(Text(f"! {alarm}", style="bold red"))
    return Group(*parts, Text(status(reading, None), style="green"))


def _heading(reading: Reading) -> Text:
    text = Text(str(reading.path), style="bold")
    session = f"  session {reading.session}" + (f", {reading.host}" if reading.host else "")
    return text.append(session, style="dim")


def progress(reading: Reading, speed: Optional[float]) -> RenderableType:
    """Return how far a run is, at which speed, and how long it still takes."""
    row = Table.grid(padding=(0, 2))
    total = reading.max_iter
    count = f"{reading.done:,} of {total:,} updates" if total else f"{reading.done:,} updates"
    cells: List[RenderableType] = [Text(count)]
    if total:
        cells.append(ProgressBar(total=total, completed=reading.done, width=24))
    cells.append(Text(f"{speed:.1f} iterations/s" if speed else "", style="cyan"))
    if total and speed and not reading.ended:
        cells.append(Text(f"{_clock((total - reading.done) / speed)} left", style="cyan"))
    row.add_row(*cells)
    return row


def _run(reading: Reading) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    last = reading.last
    if not last:
        rows.add_row(Text("nothing recorded yet", style="dim"))
        return rows
    loss = _pair(last, "loss", "smoothed_loss", "averaged")
    every = max(1, -(-len(reading.losses) // _SPARKS))
    drawn = sparkline(reading.losses[::-every][::-1])
    rows.add_row(Text("loss", style="dim"), _joined(loss, drawn))
    rows.add_row(Text("rate", style="dim"), number(last["rate"]))
    clip = last["clip_factor"]
    norm = number(last["gradient_l2"]) + (f"   clipped by {number(clip)}" if clip else "")
    rows.add_row(Text("|gradient|", style="dim"), norm)
    for name, at, value in reading.tests:
        rows.add_row(Text(f"test {name}", style="dim"), f"{number(value)}   at iteration {at:,}")
    return rows


def _joined(text: str, drawing: str) -> Text:
    return Text(f"{text}  ").append(drawing, style="cyan")


def _pair(last: dict[str, object], name: str, other: str, called: str) -> str:
    text = number(last[name])
    return f"{text}   {called} {number(last[other])}" if last[other] is not None else text


def _table(reading: Reading, rows: int) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", caption_justify="left")
    table.add_column(f"iteration {reading.at:,}", no_wrap=True)
    table.add_column("|update|/|data|", justify="right", no_wrap=True)
    table.add_column("", width=_BAR)
    for name in ("|gradient|", "|update|", "|data|"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = reading.parameters[:rows]
    for one in shown:
        lost = sum(figures["nonfinite"] for figures in one.figures.values())
        table.add_row(
            one.parameter.name + (" (statistic)" if one.parameter.statistic else ""),
            number(one.ratio, 4),
            Text(bar(one.ratio), style="cyan"),
            *(_norm(one, quantity) for quantity in ("gradient", "update", "data")),
            style="bold red" if lost else None,
        )
    left = len(reading.parameters) - len(shown)
    if left:
        table.caption = f"and {left:,} more parameters"
    return table


def _norm(one: ParameterNow, quantity: str) -> str:
    return number(one.figures[quantity]["l2"], 4) if quantity in one.figures else "-"


def status(reading: Reading, still: Optional[float]) -> str:
    """Return whether a session has ended, or for how long nothing new was recorded."""
    if reading.ended:
        return f"the session ended at {reading.ended}"
    if still is not None and still > _STILL:
        return f"nothing new for {_clock(still)}"
    return ""


def sparkline(values: np.ndarray) -> str:
    """Return values as a row of blocks, from their lowest to their highest."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ""
    low, high = float(finite.min()), float(finite.max())
    steps = len(_BLOCKS) - 1
    scale = steps / (high - low) if high > low else 0.0
    return "".join(
        _BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values
    )


def curve(values: np.ndarray, width: int, height: int) -> List[str]:
    """Return values as lines of blocks, the lowest and the highest written beside them.

    Logarithmic where all are positive and reach over two powers of ten or more.
    """
    finite = values[np.isfinite(values)]
    width = max(4, width - 10)
    if not finite.size:
        return ["nothing recorded yet"]
    ends = [number(float(finite.max()), 3), number(float(finite.min()), 3)]
    if finite.min() > 0 and finite.max() > 100 * finite.min():
        with np.errstate(invalid="ignore"):
            values = np.log10(values)
    values = values[np.linspace(0, len(values) - 1, min(width, len(values))).round().astype(int)]
    values = np.repeat(values, max(1, width // len(values)))
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    span = high - low or 1.0
    eighths = [
        1 + round((value - low) / span * (height * 8 - 1)) if math.isfinite(value) else 0
        for value in values.tolist()
    ]
    lines = []
    for row in range(height):
        label = ends[0] if row == 0 else ends[1] if row == height - 1 else ""
        base = 8 * (height - 1 - row)
        cells = ((" " + _BLOCKS)[min(8, max(0, full - base))] for full in eighths)
        lines.append(f"{label:>8}  {''.join(cells)}")
    return lines


def bar(ratio: Optional[float], width: int = _BAR) -> str:
    """Return a ratio as a bar, on a logarithmic scale from 1e-6 to 1."""
    if not ratio or not math.isfinite(ratio):
        return ""
    part = (math.log10(ratio) - _LOWEST) / (_HIGHEST - _LOWEST)
    eighths = round(min(1.0, max(0.0, part)) * width * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def number(value: object, digits: int = 6) -> str:
    """Return a figure with that many significant digits, or fewer."""
    return f"{value:.{digits}g}" if isinstance(value, (int, float)) else "-"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
