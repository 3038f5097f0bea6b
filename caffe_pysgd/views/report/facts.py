"""The few numbers at the top of the page, and the sentence above them."""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.audit.series import Series
from caffe_pysgd.views.report.gathering import RunRecord

_HOSTS: Dict[Any, str] = {
    "in-net": ", inside an unmodified caffe train",
    "hook": ", hooked on to a native solver",
    "solver": ", in the drop-in solver",
}


class Fact(NamedTuple):
    """A number with its name, and what else there is to say of it."""

    label: str
    value: str
    note: str


def facts(record: RunRecord) -> List[Fact]:
    """Return what a person wants to know first of a run."""
    found = [_iterations(record), _loss(record), *_scores(record), _time(record)]
    return [fact for fact in found if fact]


def lede(records: Sequence[RunRecord]) -> str:
    """Return one sentence on what was trained."""
    of: Dict[str, List[str]] = {}  # which runs a sentence is about
    for record in records:
        rules = sorted({p.parameter.rule for p in record.parameters})
        values = sum(p.parameter.count for p in record.parameters)
        net = re.search(r'^name: "(.*)"$', str(record.manifest.get("net", "")), re.MULTILINE)
        sentence = (
            f"{f'{net[1]}, ' if net else ''}{len(record.parameters):,} learnable parameters"
            f" with {values:,} values. Python updated them by {' and '.join(rules) or 'no rule'}"
            f"{_HOSTS.get(record.manifest.get('host'), '')}."
        )
        of.setdefault(sentence, []).append(record.name)
    if len(of) == 1:
        return next(iter(of))
    return " ".join(f"{_several(names)}: {sentence}" for sentence, names in of.items())


def _several(names: List[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} more"


def _iterations(record: RunRecord) -> Fact:
    at = record.points.at
    if not len(at):
        return Fact("Updates recorded", "0", "")
    first, last = record.points.first, int(at[-1])
    sessions = len(record.sessions)
    note = f"{first:,} to {last:,}" + (f", in {sessions} sessions" if sessions > 1 else "")
    return Fact("Updates recorded", f"{record.points.count:,}", note)


def _loss(record: RunRecord) -> Optional[Fact]:
    for name, label in (("smoothed_loss", "Loss, averaged"), ("loss", "Loss")):
        at = _last(record.scalars.get(name))
        if at is not None:
            return Fact(label, f"{at[0]:.4g}", f"at iteration {int(record.points.at[at[1]]):,}")
    return None


def _scores(record: RunRecord) -> List[Fact]:
    shown = []
    for test in record.tests:
        if len(test.values) and not np.isnan(test.values[-1]):
            net = f", net {test.net}" if test.net else ""
            note = f"test{net} at iteration {int(test.iterations[-1]):,}"
            shown.append(Fact(test.output.capitalize(), f"{test.values[-1]:.4g}", note))
    shown.sort(key=lambda fact: "loss" in fact.label.lower())
    return [fact._replace(label=f"Test {fact.label.lower()}") for fact in shown[:2]]


def _time(record: RunRecord) -> Optional[Fact]:
    passes, updates = (record.scalars.get(f"{name}_seconds") for name in ("pass", "update"))
    if passes is None or updates is None:
        return None
    both = [np.nanmedian(s.last) for s in (passes, updates) if not np.isnan(s.last).all()]
    if len(both) < 2:
        return None
    share = both[1] / (both[0] + both[1]) if sum(both) else 0.0
    return Fact("Time per iteration", _duration(sum(both)), f"median; update {share:.1%} of it")


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _last(series: Optional[Series]) -> Optional[Tuple[float, int]]:
    if series is None or np.isnan(series.last).all():
        return None
    index = int(np.flatnonzero(~np.isnan(series.last))[-1])
    return float(series.last[index]), index
