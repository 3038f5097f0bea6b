"""Progress bars on stderr, for what takes longer than a few seconds."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, List

from caffe_pysgd.cli.options import is_quiet

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def training_bars() -> Progress:
    """Return the bars of training runs; enter it to show them."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=is_quiet(),
    )


def quiet_caffe() -> None:
    """Keep Caffe's log out of a bar's way, unless somebody asks for it."""
    from caffe_pysgd.stock import pycaffe

    if "GLOG_logtostderr" not in os.environ:
        pycaffe.compiled().init_log(2, True)


@contextmanager
def showing(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many iterations of how many are done.

    Nothing is shown before it is called, and nothing where stderr is no terminal.
    """
    with ExitStack() as stack:
        bars = training_bars()
        bars.disable = bars.disable or not bars.console.is_terminal
        tasks: List[TaskID] = []

        def show(done: int, total: int) -> None:
            if not tasks:
                stack.enter_context(bars)
                tasks.append(bars.add_task(what, total=total))
            bars.update(tasks[0], completed=done, total=total)

        yield show


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
