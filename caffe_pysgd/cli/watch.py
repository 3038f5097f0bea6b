"""``caffe-pysgd watch``: a run in the terminal while it trains."""

from __future__ import annotations

from pathlib import Path

import click

from caffe_pysgd.cli.options import Number


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--once", is_flag=True, help="Print one frame and leave; so it is without a terminal."
)
@click.option("--interval", metavar="SECONDS", type=Number(0.1, 3600), default=1.0,
              show_default=True, help="From one look to the next.")  # fmt: skip
def watch(run: Path, once: bool, interval: float) -> None:
    """Show what a RUN records, live, while it trains in another terminal.

    RUN is a run directory, or the audit in it; it need not be there yet. s sorts, / filters, Enter
    shows a parameter's history, q quits; the last line lists the keys.
    """
    from caffe_pysgd.views.watch import watch as show

    show(run, interval, once)
