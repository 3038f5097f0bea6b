"""What stands out in a run, in words: parameters that do not learn, where a divergence begins."""

from __future__ import annotations

import math
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from caffe_pysgd.audit.series import Series
from caffe_pysgd.views.report.gathering import ParameterRecord, RunRecord

BARELY = 1e-6  # |update| / |data| below which float32 weights hardly change
GROWN = 3.0
_RISEN = 3.0  # times the least smoothed loss so far, and above where it began


class Remark(NamedTuple):
    """A sentence, and the parameters that it is about."""

    title: str
    text: str
    parameters: List[str]


def remarks(record: RunRecord) -> List[Remark]:
    """Return what is worth a look, what is worst first; nothing where nothing stands out."""
    found = [_nonfinite(record), _divergence(record)]
    for title, text, test in _SILENT:
        names = [p.parameter.name for p in record.parameters if test(p)]
        if names:
            found.append(Remark(_counted(len(names), title), text, names))
    return [remark for remark in found if remark]


def _counted(many: int, what: str) -> str:
    return f"{many:,} parameter{'' if many == 1 else 's'} {what}"


def _nonfinite(record: RunRecord) -> Optional[Remark]:
    """Return where the first value that is not finite was recorded, and in which array."""
    at = record.parameter_points.at
    found: List[Tuple[int, str, str]] = []
    for p in record.parameters:
        for quantity, figures in p.figures.items():
            series = figures["nonfinite"]
            where = np.flatnonzero((series.last if series.high is None else series.high) > 0)
            if len(where):
                found.append((int(where[0]), p.parameter.name, quantity))
    if not found:
        return None
    first = min(place for place, _, _ in found)
    names = [name for place, name, _ in found if place == first]
    (iteration,) = record.store.query(
        "SELECT min(iteration) FROM current_figures"
        " WHERE nonfinite > 0 AND iteration BETWEEN ? AND ?",
        [int(at[first - 1]) + 1 if first else record.points.first, int(at[first])],
    )[0]
    quantity = next(quantity for place, _, quantity in found if place == first)
    others = len({name for _, name, _ in found}) - 1
    text = (
        f"The {quantity} of {names[0]} at iteration {iteration:,} is the first array with values "
        f"that are not finite{f', {others:,} other parameters follow' if others else ''}."
    )
    return Remark("Not finite", text, list(dict.fromkeys(names))[:8])


def _divergence(record: RunRecord) -> Optional[Remark]:
    """Return where the loss left for good: far above its best, and above where it began."""
    series = record.scalars.get("smoothed_loss") or record.scalars.get("loss")
    if series is None or len(series.last) < 10:
        return None
    loss = np.where(np.isfinite(series.last), series.last, np.inf)
    best = np.minimum.accumulate(loss)
    begun = float(np.median(loss[: max(1, len(loss) // 50)]))
    high = (loss > _RISEN * best) & (loss > begun)
    if not high[-1]:
        return None
    calm = np.flatnonzero(~high)
    start = int(calm[-1]) + 1 if len(calm) else 0
    rising = start
    while rising > 0 and loss[rising - 1] < loss[rising]:
        rising -= 1
    at = record.points.at
    text = (
        f"The loss rises from iteration {int(at[rising]):,} on ({loss[rising]:.4g}), is above its "
        f"first values from iteration {int(at[start]):,} on, and does not come back."
    )
    return Remark("The loss diverges", text, [])


def _values(p: ParameterRecord, quantity: str, figure: str = "l2") -> Optional[Series]:
    return p.figures.get(quantity, {}).get(figure)


def _most(series: Optional[Series]) -> float:
    if series is None:
        return math.nan
    values = series.last if series.high is None else series.high
    return math.nan if np.isnan(values).all() else float(np.nanmax(values))


def _learns(p: ParameterRecord) -> bool:
    return not p.parameter.statistic and bool(p.updates)


def _is_dead(p: ParameterRecord) -> bool:
    return _learns(p) and _most(_values(p, "gradient")) == 0


def _is_frozen(p: ParameterRecord) -> bool:
    return _learns(p) and not _is_dead(p) and _most(_values(p, "update")) == 0


def _barely_moves(p: ParameterRecord) -> bool:
    ratio = p.updates.get("ratio")
    return _learns(p) and not _is_dead(p) and 0 < _most(ratio) < BARELY


def _ratios_of_norm(p: ParameterRecord) -> Iterator[float]:
    data = _values(p, "data")
    if _learns(p) and data is not None:
        finite = data.last[np.isfinite(data.last)]
        if len(finite) > 1 and finite[0] > 0:
            yield float(finite[-1] / finite[0])


def _grows(p: ParameterRecord) -> bool:
    # A bias begins at 0 or near it.
    return len(p.parameter.shape) > 1 and any(ratio > GROWN for ratio in _ratios_of_norm(p))


_SILENT: Tuple[Tuple[str, str, Callable[[ParameterRecord], bool]], ...] = (
    ("dead", "The gradient is zero at every recorded iteration.", _is_dead),
    ("frozen", "There is a gradient, but the update is zero throughout.", _is_frozen),
    (
        "barely moving",
        f"|update| / |data| never reaches {BARELY:g}: in float32 most weights stay as they are.",
        _barely_moves,
    ),
    ("growing", f"The norm of the weights is more than {GROWN:g} times the first one.", _grows),
)
