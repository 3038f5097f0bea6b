"""A run in the terminal while it trains: what the audit says now, once a second."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.errors import UserError
from caffe_pysgd.optional import needed
from caffe_pysgd.views.watch.frame import frame
from caffe_pysgd.views.watch.reading import look, read


def watch(run: Path, interval: float = 1.0, once: bool = False) -> None:
    """Show a run in the terminal until the user leaves.

    Waits for an audit that is not there yet.

    Args:
        run: a run directory, or an audit.
        interval: seconds from one look at the audit to the next.
        once: print one frame and return.

    Raises:
        UserError: there is no audit and ``once`` is given, or what is there is none; Textual is not
            installed.
    """
    console = Console()
    if once or not console.is_terminal:
        with open_audit(run) as store:
            console.print(frame(read(store), console.height))
        return
    without = "; --once prints one frame without it"
    needs = "watch on a terminal needs Textual"
    app = needed("caffe_pysgd.views.watch.app", needs, "watch", without)
    look(run)  # what is no audit is said before the screen changes
    failure = app.Watch(run, interval).run()
    if failure:
        raise UserError(failure)
