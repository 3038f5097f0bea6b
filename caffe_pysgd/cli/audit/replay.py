"""``caffe-pysgd audit replay``: train again what was recorded, and compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Optional

import click

from caffe_pysgd.audit.replay import replay as replay_store
from caffe_pysgd.audit.store import Store
from caffe_pysgd.cli.progress import quiet_caffe, training_again
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import write_whole


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "first", metavar="A", type=click.IntRange(0), help="The first iteration.")
@click.option("--to", "last", metavar="B", type=click.IntRange(0), help="The last iteration.")
@click.option(
    "--json", "json_file", metavar="FILE", type=click.Path(path_type=Path), help="Also as JSON."
)
def replay(
    file: Path, first: Optional[int], last: Optional[int], json_file: Optional[Path]
) -> None:
    """Train again what FILE recorded, and compare every figure and every hash of the weights.

    FILE is an audit, or the run directory that holds one. Exit code 1 if something differs.
    """
    with Store(file) as store:
        recorded_last = store.last_iteration()
        if recorded_last is None:
            raise UserError(f"{store.path}: no iteration was recorded")
        first, last = first or 0, recorded_last if last is None else last
        if first > last:
            raise UserError(f"--from: found {first}, which is after --to {last}")
        quiet_caffe()
        with training_again() as progress:
            result = replay_store(store, first, min(last, recorded_last), progress)
    if json_file:
        write_whole({json_file: json.dumps(result.as_json(), indent=2) + "\n"})
    click.echo(f"{result.iterations} recorded iterations confirmed, every figure to the bit")
    click.echo(result.verdict)
    if result.difference:
        sys.exit(1)
