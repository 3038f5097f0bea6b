"""The parameters as rows: what is odd about them, which are shown, and in which order."""

from __future__ import annotations

import math
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.views.watch.reading import ParameterNow

_FAR = 1.5  # powers of ten from the median ratio, from where a ratio is marked


class Row(NamedTuple):
    """A parameter at the last iteration: the figures that are shown, and a mark.

    Attributes:
        zeros: the part of the gradient that is 0; None where it was not recorded.
        mark: ``not finite``, ``zero grad``, ``high`` or ``low`` for a ratio far from the others'.
    """

    number: int
    name: str
    is_statistic: bool
    ratio: Optional[float]
    gradient: Optional[float]
    update: Optional[float]
    data: Optional[float]
    zeros: Optional[float]
    mark: str


def _or(value: Optional[float], otherwise: float) -> float:
    return otherwise if value is None or math.isnan(value) else value


ORDERS: Dict[str, Callable[[Row], float]] = {
    "net": lambda row: row.number,
    "largest ratio": lambda row: -_or(row.ratio, -math.inf),
    "smallest ratio": lambda row: _or(row.ratio, math.inf),
    "largest gradient": lambda row: -_or(row.gradient, -math.inf),
    "zero gradients": lambda row: -_or(row.zeros, -1.0),
    "marked": lambda row: not row.mark,
}


def rows_of(parameters: Sequence[ParameterNow]) -> List[Row]:
    """Return the rows of all parameters, in Caffe's order."""
    ratios = [p.ratio for p in parameters if p.ratio and math.isfinite(p.ratio)]
    middle = float(np.median(np.log10(ratios))) if len(ratios) > 3 else None
    return [_row(one, middle) for one in parameters]


def _row(one: ParameterNow, middle: Optional[float]) -> Row:
    figures = one.figures
    gradient, update, data = (
        figures[quantity]["l2"] if quantity in figures else None
        for quantity in ("gradient", "update", "data")
    )
    zeros = figures["gradient"]["zeros"] / one.parameter.count if "gradient" in figures else None
    mark = ""
    if any(row["nonfinite"] for row in figures.values()):
        mark = "not finite"
    elif zeros == 1 and not one.parameter.statistic:
        mark = "zero grad"
    elif one.ratio and middle is not None and math.isfinite(one.ratio):
        away = math.log10(one.ratio) - middle
        mark = "high" if away > _FAR else "low" if away < -_FAR else ""
    return Row(
        one.parameter.parameter, one.parameter.name, one.parameter.statistic, one.ratio, gradient,
        update, data, zeros, mark,
    )  # fmt: skip


def shown(rows: Sequence[Row], words: str, statistics: bool, order: str) -> Tuple[List[Row], int]:
    """Return the rows that are asked for, in an order, and how many statistics are hidden.

    Args:
        rows: all of them.
        words: each must be in the name.
        statistics: whether those of BatchNorm are shown, too.
        order: one of ``ORDERS``.
    """
    wanted = [row for row in rows if all(w in row.name.lower() for w in words.lower().split())]
    kept = [row for row in wanted if statistics or not row.is_statistic]
    return sorted(kept, key=ORDERS[order]), len(wanted) - len(kept)


def fitted(name: str, width: int) -> str:
    """Return a name cut in its middle: how it ends tells a layer's parameters apart."""
    if len(name) <= width:
        return name
    ending = min(width // 2, len(name) - 1)
    return f"{name[: width - ending - 1]}…{name[-ending:]}"
