"""``caffe-pysgd export``: what was recorded, in the formats of others."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["tensorboard", "csv", "parquet"]),
    required=True,
    help="What to write.",
)
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), required=True,
              help="The folder to write to; it is made if need be.")  # fmt: skip
def export(run: Path, format: str, output: Path) -> None:
    """Write what was recorded of RUN as CSV, Parquet, or event files for TensorBoard.

    RUN is a run directory, or the audit in it. CSV and Parquet get a file for each table; an event
    file has the scalars and the histograms. Prints the files' paths.
    """
    from caffe_pysgd.views.export import export as write

    for path in write(run, format, output):
        click.echo(path)
