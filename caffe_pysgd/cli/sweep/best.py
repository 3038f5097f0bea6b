"""``caffe-pysgd sweep best``: the best run of a sweep, as a YAML that trains it again."""

from __future__ import annotations

from pathlib import Path

import click

from caffe_pysgd.errors import UserError


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def best(directory: Path) -> None:
    """Print the YAML that trains the best run of the sweep in DIR again, to the same bits.

    The best run is that of the best combination. Keep the YAML in the working directory, to which
    its paths are relative; it names a run directory of its own.
    """
    from caffe_pysgd.experiments.results import best_run, best_yaml, results
    from caffe_pysgd.experiments.study import open_sweep

    sweep, study = open_sweep(directory)
    run = best_run(sweep, results(sweep, study))
    if run is None:
        raise UserError(f"{directory}: no run has finished yet")
    click.echo(best_yaml(sweep, run), nl=False)
