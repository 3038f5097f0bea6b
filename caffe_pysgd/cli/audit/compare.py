"""``caffe-pysgd audit compare``: where two runs part."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Optional

import click

from caffe_pysgd.cli.options import json_option


@click.command()
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@json_option("Also write what was found as JSON.", metavar="OUT")
def compare(a: Path, b: Path, json_path: Optional[Path]) -> None:
    """Name the first iteration at which the runs A and B part, and the parameters.

    A and B are audits or run directories, of two machines or two hosts. What both recorded is
    compared: rates, losses, figures, hashes of the weights; not the times. Exit code 0 if all of it
    is the same, else 1.
    """
    from caffe_pysgd.audit.diff import compare_audits
    from caffe_pysgd.files import write_json

    found = compare_audits(a, b)
    if json_path:
        write_json(json_path, asdict(found))
    if found.same:
        click.echo(
            f"compare: {found.iterations} iterations are the same, "
            f"from {found.first} to {found.last}"
        )
        sys.exit(0)
    for parameter in dict.fromkeys(one.parameter for one in found.differences):
        first, *others = [one for one in found.differences if one.parameter == parameter]
        click.echo(f"{first}{f' (and {len(others)} more)' if others else ''}")
    where = "before the first" if found.iteration is None else f"at iteration {found.iteration}"
    at = f" in {', '.join(found.parameters)}" if found.parameters else ""
    click.echo(f"compare: they diverge {where}{at}, after {found.iterations} that are the same")
    sys.exit(1)
