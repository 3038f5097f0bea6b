"""Progress bars on stderr, for what takes longer than a few seconds."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def training_bars() -> Progress:
    """Return the bars of training runs; enter it to show them."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def solving_bar() -> Progress:
    """Return the bar of one long training: loss, rate, iterations a second, time left."""
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class TrainingBar:
    """One training run's bar, counting iterations."""

    def __init__(self, bars: Progress, title: str, iterations: int) -> None:
        self._bars = bars
        self._iterations = iterations
        self._task = bars.add_task(title, total=iterations)

    def reach(self, iteration: int) -> None:
        """Show that training reached an iteration."""
        self._bars.update(self._task, completed=iteration)

    def finish(self) -> None:
        """Show that training is done."""
        self.reach(self._iterations)
