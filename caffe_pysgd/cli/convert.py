"""``caffe-pysgd convert``: snapshots between in-net and stock, and models without the plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import click

from caffe_pysgd.cli.options import (
    net_state_options,
    no_user_code_option,
    set_options,
    source_argument,
    stages_of,
)
from caffe_pysgd.errors import UserError

_FILE = click.Path(path_type=Path)


@click.command()
@source_argument
@click.argument("output", metavar="OUTPUT", type=_FILE)
@click.option("--snapshot", metavar="S", type=_FILE, help="The .solverstate to convert.")
@set_options
@net_state_options
@no_user_code_option
def convert(
    source: Path,
    output: Path,
    snapshot: Optional[Path],
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Convert a snapshot of X between in-net and stock, or strip a model.

    \b
        caffe-pysgd convert X PREFIX --snapshot S.solverstate
        caffe-pysgd convert MODEL.caffemodel STRIPPED.caffemodel

    The first turns an in-net snapshot into a stock one, from which `caffe train` resumes with the
    native solver, and a stock one into an in-net one; it writes PREFIX_iter_N.caffemodel and
    PREFIX_iter_N.solverstate, as Caffe names them. The second removes the plugin's layers.
    """
    from caffe_pysgd.hosts.in_net.convert import is_in_net, strip, to_in_net, to_stock
    from caffe_pysgd.run.resolve import resolve

    if snapshot is None:
        if not source.name.endswith((".caffemodel", ".caffemodel.h5")):
            raise UserError(f"{source}: to convert a snapshot of it, give --snapshot S.solverstate")
        strip(source, output)
        click.echo(output)
        return
    run = resolve(source, level=level, stages=stages_of(stage), settings=changes)
    change = to_stock if is_in_net(snapshot) else to_in_net
    click.echo(change(snapshot, run, output))
