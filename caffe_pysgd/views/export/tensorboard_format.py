"""Event files for TensorBoard: scalars of the run and of each parameter, and histograms."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from datetime import datetime, timezone
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from tensorboardX import FileWriter
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary

from caffe_pysgd.audit.store import FIGURES, Store
from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.tables import ExportedTable, batches, exported_tables

FILE = "events.out.tfevents.0.caffe-pysgd"

_TAGS = {
    "loss": "loss/batch",
    "smoothed_loss": "loss/averaged",
    "rate": "run/rate",
    "gradient_l2": "run/gradient_l2",
    "clip_factor": "run/clip_factor",
    "pass_seconds": "seconds/forward_and_backward",
    "update_seconds": "seconds/update",
}

Moment = Tuple[int, Any]
"""An iteration, and a value of the summary there."""


def write(store: Store, folder: Path) -> List[Path]:
    """Write one event file; a step is an iteration as Caffe counts them, from 0."""
    clock = _Clock(store)
    path = folder / FILE
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as place:
        writer = FileWriter(place)
        tables = {table.name: table for table in exported_tables()}
        for make in (_run, _tests, _updates, _figures, _histograms):
            for iteration, moments in groupby(make(store, tables), itemgetter(0)):
                summary = Summary(value=[value for _, value in moments])
                writer.add_summary(summary, iteration, walltime=clock.time(iteration))
        writer.close()
        (written,) = Path(place).iterdir()
        with replacing(path) as target:
            shutil.copyfile(written, target)
    return [path]


def _dictionaries(store: Store, table: ExportedTable) -> Iterator[Dict[str, Any]]:
    for rows in batches(store, table):
        for row in rows:
            yield dict(zip(table.columns, row))


def _scalar(tag: str, row: Dict[str, Any], column: str) -> Iterator[Moment]:
    if row[column] is not None:
        yield row["iteration"], Summary.Value(tag=tag, simple_value=row[column])


def _run(store: Store, tables: Dict[str, ExportedTable]) -> Iterator[Moment]:
    for row in _dictionaries(store, tables["iterations"]):
        for column, tag in _TAGS.items():
            yield from _scalar(tag, row, column)


def _tests(store: Store, tables: Dict[str, ExportedTable]) -> Iterator[Moment]:
    for (net, output), (iterations, values) in store.tests().items():
        for iteration, value in zip(iterations, values):
            if not math.isnan(value):
                tag = f"test/{net}/{output}"
                yield int(iteration), Summary.Value(tag=tag, simple_value=value)


def _updates(store: Store, tables: Dict[str, ExportedTable]) -> Iterator[Moment]:
    for row in _dictionaries(store, tables["updates"]):
        yield from _scalar(f"update_to_data/{row['name']}", row, "ratio")
        yield from _scalar(f"local_rate/{row['name']}", row, "local_rate")


def _figures(store: Store, tables: Dict[str, ExportedTable]) -> Iterator[Moment]:
    for row in _dictionaries(store, tables["figures"]):
        for figure in FIGURES:
            yield from _scalar(f"{row['quantity']}_{figure}/{row['name']}", row, figure)


def _histograms(store: Store, tables: Dict[str, ExportedTable]) -> Iterator[Moment]:
    """Yield histograms with the recorded bins, and the exact sums where figures tell them."""
    sql = (
        "SELECT h.iteration, h.quantity, p.name, h.low, h.high, h.counts, f.mean * p.count,"
        " f.l2 * f.l2 FROM current_histograms h JOIN parameters p USING (session, parameter)"
        " LEFT JOIN figures f USING (session, iteration, parameter, quantity) ORDER BY h.iteration"
    )
    for iteration, quantity, name, low, high, counts, total, squares in store.query(sql):
        bins = json.loads(counts)
        width = (high - low) / len(bins)
        edges = [low + width * (index + 1) for index in range(len(bins) - 1)] + [high]
        histo = HistogramProto(
            min=low,
            max=high,
            num=sum(bins),
            sum=_sum(bins, edges, width, 1) if total is None else total,
            sum_squares=_sum(bins, edges, width, 2) if squares is None else squares,
            # The first bin of an event file reaches from minus infinity to its limit.
            bucket_limit=[low, *edges],
            bucket=[0.0, *map(float, bins)],
        )
        yield iteration, Summary.Value(tag=f"{quantity}/{name}", histo=histo)


def _sum(bins: Sequence[int], edges: Sequence[float], width: float, power: int) -> float:
    """Return a sum as the middles of the bins give it."""
    return math.fsum(n * (edge - width / 2) ** power for n, edge in zip(bins, edges))


class _Clock:
    """When an iteration was, as far as the audit tells: its session's begin and the times since."""

    def __init__(self, store: Store) -> None:
        starts = {s.session: _seconds(s.started) for s in store.sessions()}
        self._times: Dict[int, float] = {}
        session: Optional[int] = None
        now = 0.0
        rows = store.query(
            "SELECT session, iteration, pass_seconds, update_seconds FROM current_iterations"
            " ORDER BY iteration"
        )
        for of, iteration, passes, update in rows:
            if of != session:
                session, now = of, starts[of]
            now += (passes or 0.0) + (update or 0.0)
            self._times[iteration] = now
        self._last = now or next(iter(starts.values()), 0.0)

    def time(self, iteration: int) -> float:
        """Return the seconds since 1970."""
        return self._times.get(iteration, self._last)


def _seconds(started: str) -> float:
    try:
        moment = datetime.fromisoformat(started.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
