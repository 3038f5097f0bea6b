"""``caffe-pysgd schedule``: the rates over a run, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import click

from caffe_pysgd.cli.options import (
    net_state_options,
    no_user_code_option,
    set_options,
    source_argument,
    stages_of,
)
from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.files import replacing
from caffe_pysgd.optional import needed

if TYPE_CHECKING:
    from caffe_pysgd.arrays import Floats
    from caffe_pysgd.run.rates import GroupRates

_ROWS, _POINTS, _WIDTH, _HEIGHT = 11, 1000, 60, 6
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PICTURES = (".png", ".svg", ".pdf")


@click.command()
@source_argument
@click.option("--iterations", "span", metavar="A:B", help="From A to B instead of the whole run.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="Also draw the rates into a PNG, SVG or PDF.")  # fmt: skip
@set_options
@net_state_options
@no_user_code_option
def schedule(
    source: Path,
    span: Optional[str],
    output: Optional[Path],
    changes: Tuple[str, ...],
    level: int,
    stage: str,
) -> None:
    """Show the learning rate of every parameter group of X over the run, before it starts.

    A rate is that of the policy times lr_mult, with the update's own bits; 0 where a group is
    frozen. Nothing is trained.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from caffe_pysgd.run.rates import rates
    from caffe_pysgd.run.resolve import resolve

    if output and output.suffix not in _PICTURES:
        raise SettingError("--output", str(output), f"a name that ends in {', '.join(_PICTURES)}")
    run = resolve(source, level=level, stages=stages_of(stage), settings=changes)
    first, last = _span(span, run.solver.max_iter)
    console = Console()
    shown = _spread(first, last, _ROWS)
    groups = rates(run, shown)
    table = Table("iteration", box=None)
    for number, _ in enumerate(groups):
        table.add_column(_letter(number), justify="right")
    for row, iteration in enumerate(shown):
        table.add_row(f"{iteration:,}", *(f"{group.rates[row]:g}" for group in groups))
    for number, group in enumerate(groups):
        console.print(Text(f"{_letter(number)}: {', '.join(group.names)} ({group.policy})"))
    console.print(table)
    drawn = _spread(first, last, _WIDTH)
    for number, group in enumerate(rates(run, drawn)):
        console.print(Text(f"\n{_letter(number)}, up to {group.rates.max():g}"))
        for line in chart(group.rates):
            console.print(Text(line))
    if output:
        points = _spread(first, last, _POINTS)
        _draw(output, points, rates(run, points), str(source))
        click.echo(output)


def chart(values: Floats) -> List[str]:
    """Return values from 0 up to the largest as lines of blocks, the uppermost line first."""
    highest = float(values.max()) or 1.0
    eighths = [round(float(value) / highest * 8 * _HEIGHT) for value in values]
    return [
        "".join(_BLOCKS[min(8, max(0, height - 8 * line))] for height in eighths)
        for line in reversed(range(_HEIGHT))
    ]


def _span(span: Optional[str], max_iter: int) -> Tuple[int, int]:
    """Return the first and the last iteration that have an update."""
    first, last = 0, max_iter - 1
    if span is not None:
        parts = span.split(":")
        if len(parts) != 2 or not all(part.isdigit() or not part for part in parts):
            raise SettingError("--iterations", span, "A:B, two iterations")
        first, last = int(parts[0] or first), int(parts[1] or last)
    if not 0 <= first <= last < 2**31:
        if span is None:
            raise UserError(f"max_iter is {max_iter}: there is no update; give --iterations A:B")
        raise SettingError("--iterations", span, "A:B, the first iteration and a later one")
    return first, last


def _spread(first: int, last: int, most: int) -> List[int]:
    """Return so many iterations, evenly spread, with the first and the last."""
    import numpy as np

    count = min(most, last - first + 1)
    return [int(at) for at in np.unique(np.linspace(first, last, count).round())]


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number + 1}"


def _draw(output: Path, points: Sequence[int], groups: Sequence[GroupRates], title: str) -> None:
    pyplot = needed("matplotlib.figure", "--output needs matplotlib", "plot")
    figure = pyplot.Figure(figsize=(8, 4), constrained_layout=True)
    axes = figure.subplots()
    for group in groups:
        names = ", ".join(group.names[:4]) + (", ..." if len(group.names) > 4 else "")
        axes.plot(points, group.rates, label=names)
    axes.set(title=title, xlabel="iteration", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    axes.legend()
    with replacing(output) as place:
        figure.savefig(place, format=output.suffix[1:])
