"""``caffe-pysgd sweep status``: the runs of a sweep, now."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def status(directory: Path) -> None:
    """Show the runs of the sweep in DIR, whichever machines train them, and the ranking so far."""
    from rich.console import Console

    from caffe_pysgd.experiments.results import results
    from caffe_pysgd.experiments.screen import live_table, ranked_table
    from caffe_pysgd.experiments.study import open_sweep

    sweep, study = open_sweep(directory)
    runs = results(sweep, study)
    console = Console()
    console.print(live_table(sweep, runs, {}, len(runs) + 10))
    console.print(ranked_table(sweep, runs))
