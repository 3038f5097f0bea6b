"""``caffe-pysgd sweep report``: the runs of a sweep compared, as a page and a CSV."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Write the page and the CSV of the sweep in DIR, and the report of each run that ended.

    Also works while the sweep runs. Prints the files' paths.
    """
    from caffe_pysgd.experiments.comparison import write_comparison, write_reports
    from caffe_pysgd.experiments.results import results, write_csv
    from caffe_pysgd.experiments.study import open_sweep

    sweep, study = open_sweep(directory)
    runs = results(sweep, study)
    write_reports(runs)
    click.echo(write_csv(sweep, runs))
    click.echo(write_comparison(sweep, study))
