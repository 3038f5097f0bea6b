"""A progress bar over a solver's updates: on a terminal, or in a notebook."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional

import numpy as np

from caffe_pysgd.update import Observer
from caffe_pysgd.update.stages import Clipping

if TYPE_CHECKING:
    from caffe_pysgd.hosts.solver import Solver

_SECONDS_BETWEEN_SHOWS = 0.25

Show = Callable[..., None]
"""Called with ``done``, ``total``, ``loss``, ``rate``, ``per_second``."""


@contextmanager
def training_bar(solver: Solver, last: int) -> Iterator[None]:
    """Show how far a solver is on its way to an iteration.

    The bar is drawn by the updates themselves, a few times a second: a thread that draws would take
    its time from the training's. Where a notebook loops over short steps, there is none.

    Args:
        solver: its ``progress`` says whether there is a bar; where it is None, there is one in a
            notebook.
        last: the iteration.
    """
    by_itself = in_notebook() and last - solver.iter > 1
    wanted = by_itself if solver.progress is None else solver.progress
    if not wanted:
        yield
        return
    with _notebook_bar() if in_notebook() else _terminal_bar() as show:
        bar = _Bar(solver, last, show)
        solver.updater.observers.append(bar)
        try:
            yield
        finally:
            solver.updater.observers.remove(bar)
            if solver.progress or bar.shown:
                bar.draw()


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return hasattr(shell, "kernel")


class _Bar(Observer):
    """Moves a bar along with the updates."""

    def __init__(self, solver: Solver, last: int, show: Show) -> None:
        self._solver, self._last, self._show = solver, last, show
        self._start, self._since = solver.iter, time.perf_counter()
        self._at, self._rate, self._done = self._since, np.float32(0), solver.iter
        self.shown = False

    def due(self, iteration: int) -> bool:
        return False

    def updated(self, iteration: int, rate: np.float32, clipping: Optional[Clipping]) -> None:
        self._done, self._rate = iteration + 1, rate
        if time.perf_counter() - self._at >= _SECONDS_BETWEEN_SHOWS:
            self.draw()

    def draw(self) -> None:
        """Show where it is."""
        self._at, self.shown = time.perf_counter(), True
        self._show(
            done=self._done,
            total=self._last,
            loss=f"loss {self._solver.smoothed_loss:.4g}",
            rate=f"lr {self._rate:.4g}",
            per_second=(self._done - self._start) / (self._at - self._since),
        )


@contextmanager
def _terminal_bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn(f"{{task.fields[{name}]}}") for name in ("loss", "rate", "speed")]
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    ) as bars:
        task = bars.add_task("", visible=False, loss="", rate="", speed="")

        def show(done: int, total: int, loss: str, rate: str, per_second: float) -> None:
            speed = f"{per_second:.1f} it/s"
            bars.update(
                task, total=total, completed=done, visible=True, loss=loss, rate=rate, speed=speed
            )
            bars.refresh()

        yield show


@contextmanager
def _notebook_bar() -> Iterator[Show]:
    ipython: Any = import_module("IPython.display")
    handle: Any = None

    def show(done: int, total: int, loss: str, rate: str, per_second: float) -> None:
        nonlocal handle
        html = ipython.HTML(
            f'<progress value="{done}" max="{total}"></progress> '
            f"{done}/{total} · {loss} · {rate} · {per_second:.1f} it/s"
        )
        if handle is None:
            handle = ipython.display(html, display_id=True)
        else:
            handle.update(html)

    yield show
