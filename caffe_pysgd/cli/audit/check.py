"""``caffe-pysgd audit check``: whether a ledger is intact."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Optional

import click

from caffe_pysgd.cli.options import json_option
from caffe_pysgd.cli.progress import showing


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option("Also write what was found as JSON.", metavar="OUT")
def check(file: Path, json_path: Optional[Path]) -> None:
    """Say whether the ledger in FILE is intact, and if not, where it was broken.

    FILE is an audit, or a run directory. Exit code 0 if every row is as it was recorded, else 1.
    """
    from caffe_pysgd.audit.check import check_ledger
    from caffe_pysgd.files import write_json

    with showing("checking") as progress:
        found = check_ledger(file, progress)
    click.echo(f"{file}: {found}")
    if json_path:
        write_json(json_path, asdict(found))
    sys.exit(0 if found.intact else 1)
