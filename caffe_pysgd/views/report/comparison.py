"""Several runs beside each other: the settings in which they differ, and how well each did."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from caffe_pysgd.views.report.gathering import RunRecord

_MOST_COLUMNS = 12
_WHERE = ("snapshot_prefix", "net", "run_dir", "solver", "source", "file", "test_net", "train_net")


class Column(NamedTuple):
    """A column of the comparison: a value for each run, as text and as what it is sorted by."""

    title: str
    cells: List[str]
    order: List[float]
    best: int  # the run with the best value; -1 for none


def comparison(records: Sequence[RunRecord]) -> List[Column]:
    """Return the settings that are not the same in all runs, then losses and scores."""
    return [*_differing(records), *_scores(records)]


def _differing(records: Sequence[RunRecord]) -> List[Column]:
    said = [dict(_settings(record)) for record in records]
    names = list(dict.fromkeys(name for one in said for name in one))
    differing = [name for name in names if len({one.get(name, "") for one in said}) > 1]
    columns: Dict[Tuple[str, ...], Column] = {}
    for name in differing:
        cells = [one.get(name, "-") for one in said]
        # The rule, for one, is said by the solver file and the configuration once more.
        same = tuple(cell.lower() for cell in cells)
        columns.setdefault(same, Column(name, cells, [_number(cell) for cell in cells], -1))
    return list(columns.values())[:_MOST_COLUMNS]


def _settings(record: RunRecord) -> Iterator[Tuple[str, str]]:
    manifest = record.manifest
    yield "rule", str(manifest.get("rule", ""))
    for key, value in re.findall(
        r"^ *(\w+): *(.*)$", str(manifest.get("solver", "")), re.MULTILINE
    ):
        if key not in _WHERE:
            yield key, value.strip("\"'")
    yield from _flat(manifest.get("hyperparameters") or {}, "")
    update = (manifest.get("configuration") or {}).get("update") or {}
    yield from _flat(update, "update.")
    if manifest.get("net"):
        yield "net", _fingerprint(str(manifest["net"]))
    for key in ("host", "kernels"):
        yield key, str(manifest.get(key, ""))


def _flat(values: Dict[str, Any], before: str) -> Iterator[Tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif key not in _WHERE:
            yield f"{before}{key}", value if isinstance(value, str) else json.dumps(value)


def _fingerprint(net: str) -> str:
    name = re.search(r'^name: "(.*)"$', net, re.MULTILINE)
    return f"{name[1] if name else 'net'}, {net.count('layer {'):,} layers, {len(net):,} characters"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _scores(records: Sequence[RunRecord]) -> List[Column]:
    columns = [_ends(records)]
    names = dict.fromkeys((t.net, t.output) for record in records for t in record.tests)
    for net, output in names:
        is_loss = "loss" in output.lower()
        best: List[float] = []
        cells: List[str] = []
        for record in records:
            found = [t for t in record.tests if (t.net, t.output) == (net, output)]
            values = found[0].values if found else np.zeros(0)
            if not len(values) or np.isnan(values).all():
                best.append(float("nan"))
                cells.append("-")
                continue
            place = int(np.nanargmin(values) if is_loss else np.nanargmax(values))
            best.append(float(values[place]))
            cells.append(f"{values[place]:.4g} at {int(found[0].iterations[place]):,}")
        title = f"{'least' if is_loss else 'best'} {output}{f' #{net}' if net else ''}"
        columns.append(Column(title, cells, best, _best(best, is_loss)))
    return columns


def _ends(records: Sequence[RunRecord]) -> Column:
    values: List[float] = []
    for record in records:
        series = record.scalars.get("smoothed_loss") or record.scalars.get("loss")
        finite = series.last[~np.isnan(series.last)] if series is not None else np.zeros(0)
        values.append(float(finite[-1]) if len(finite) else float("nan"))
    cells = ["-" if np.isnan(value) else f"{value:.4g}" for value in values]
    return Column("last loss", cells, values, _best(values, True))


def _best(values: List[float], least: bool) -> int:
    if len(values) < 2 or np.isnan(values).all():
        return -1
    return int(np.nanargmin(values) if least else np.nanargmax(values))
