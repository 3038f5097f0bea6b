"""``caffe-pysgd export``: what was recorded, in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import click

from caffe_pysgd.cli.completion import recorded_parameters
from caffe_pysgd.cli.options import WholeNumber
from caffe_pysgd.cli.progress import showing


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
@click.option(
    "--param",
    "params",
    metavar="PATTERN",
    multiple=True,
    shell_complete=recorded_parameters,
    help="Only parameters of that name, such as conv1/0 or 'conv*'; may be repeated.",
)
@click.option(
    "--quantities",
    metavar="Q,...",
    default="",
    help="Only these arrays' statistics and histograms: gradient, update, data, ...",
)
@click.option("--every", metavar="N", type=WholeNumber(1, 2**31 - 1), default=1,
              help="Only iterations that N divides.")  # fmt: skip
def export(
    run: Path,
    format: str,
    output: Path,
    params: Tuple[str, ...],
    quantities: str,
    every: int,
) -> None:
    """Write what was recorded of RUN as CSV, Parquet, or event files for TensorBoard.

    RUN is a run directory, or the audit in it. CSV and Parquet get a file for each table; an event
    file has the scalars and the histograms. Prints the files' paths.
    """
    from caffe_pysgd.views.export import export as write
    from caffe_pysgd.views.export.tables import Selection

    wanted = tuple(name.strip() for name in quantities.split(",") if name.strip())
    with showing("exporting") as progress:
        files = write(run, format, output, Selection(params, wanted, every), progress)
    for path in files:
        click.echo(path)
