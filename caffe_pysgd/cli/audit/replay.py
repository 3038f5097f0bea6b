"""``caffe-pysgd audit replay``: train again what was recorded, and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

import click

from caffe_pysgd.cli.completion import recorded_iterations
from caffe_pysgd.cli.options import (
    ITERATION,
    allow_user_code_option,
    json_option,
    no_user_code_option,
)
from caffe_pysgd.cli.progress import quiet_caffe, showing
from caffe_pysgd.errors import SettingError, UserError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "first", metavar="A", type=ITERATION, shell_complete=recorded_iterations,
              help="The first iteration.")  # fmt: skip
@click.option("--to", "last", metavar="B", type=ITERATION, shell_complete=recorded_iterations,
              help="The last iteration.")  # fmt: skip
@json_option("Also as JSON.")
@allow_user_code_option
@no_user_code_option
def replay(
    file: Path,
    first: Optional[int],
    last: Optional[int],
    json_path: Optional[Path],
    allow_user_code: bool,
) -> None:
    """Train again what FILE recorded, and compare every figure and every hash of the weights.

    FILE is an audit, or the run directory that holds one. Exit code 1 if something differs.
    """
    from caffe_pysgd.audit.opening import open_audit
    from caffe_pysgd.files import write_json
    from caffe_pysgd.proof.replay import replay as replay_store

    with open_audit(file) as store:
        span = store.span()
        if span is None:
            raise UserError(f"{store.path}: no iteration was recorded")
        first, last = first or 0, span[1] if last is None else last
        if first > last:
            raise SettingError("--from", first, f"at most --to {last}")
        quiet_caffe()
        with showing("training again") as progress:
            result = replay_store(store, first, min(last, span[1]), progress, allow_user_code)
    if json_path:
        write_json(json_path, result.as_json())
    click.echo(f"{result.iterations} recorded iterations confirmed, every figure to the bit")
    click.echo(result.verdict)
    if result.difference:
        sys.exit(1)
