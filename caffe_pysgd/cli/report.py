"""``caffe-pysgd report``: recorded runs as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import click

from caffe_pysgd.cli.progress import showing

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=_PATH)
@click.option("-o", "--output", metavar="FILE", type=_PATH,
              help="What to write; report.html beside the first audit unless told.")  # fmt: skip
@click.option("--check/--no-check", default=True, show_default=True,
              help="Whether to check the ledger, which reads all of it.")  # fmt: skip
def report(runs: Tuple[Path, ...], output: Optional[Path], check: bool) -> None:
    """Show what was recorded of each RUN in one HTML file, which needs no network.

    RUN is a run directory, or the audit in it. Several runs are drawn over each other. Also works
    while training runs: the page shows what was recorded up to now. Prints the file's path.
    """
    from caffe_pysgd.views.report import write_report

    with showing("reading") as progress:
        written = write_report(runs, output, check, progress)
    click.echo(written)
