"""``caffe-pysgd audit check``: whether a ledger is whole."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Optional

import click

from caffe_pysgd.audit.checking import check_ledger
from caffe_pysgd.files import write_whole


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--json", "json_path", metavar="OUT", type=click.Path(path_type=Path),
              help="Also write what was found as JSON.")  # fmt: skip
def check(file: Path, json_path: Optional[Path]) -> None:
    """Say whether the ledger in FILE is whole, and if not, where it was broken.

    FILE is an audit, or a run directory. Exit code 0 if every row is as it was recorded, else 1.
    """
    found = check_ledger(file)
    click.echo(f"{file}: {found}")
    if json_path:
        write_whole({json_path: json.dumps(asdict(found), indent=2) + "\n"})
    sys.exit(0 if found.whole else 1)
