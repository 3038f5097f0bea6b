"""Event files for TensorBoard: scalars of the run and of each parameter, and histograms."""

from __future__ import annotations

import json
import math
import struct
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary
from tensorboardX.record_writer import masked_crc32c

from caffe_pysgd.audit.schema import TAGS
from caffe_pysgd.audit.store import FIGURES, Store
from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.tables import (
    Columns,
    ExportedTable,
    Part,
    Source,
    columns_of,
    exported_tables,
)

FILE = "events.out.tfevents.0.caffe-pysgd"

_TABLES = ("iterations", "updates", "figures", "histograms")
_SUMMARY = 0x2A  # the key of an event's summary: field 5, of a length
_VALUE = 0x0A  # the key of a summary's value: field 1, of a length

Named = Tuple[Tuple[str, Tuple[Any, ...]], ...]
"""Tags with their values, row by row of one iteration."""


def write(source: Source, folder: Path) -> List[Path]:
    """Write one event file; a step is an iteration as Caffe counts them, from 0."""
    events = _Events(_Clock(source.store))
    path = folder / FILE
    tables = {table.name: table for table in exported_tables()}
    with replacing(path) as place, open(place, "wb") as file:
        began = Event(wall_time=events.clock.time(-1), file_version="brain.Event:2")
        file.write(_record(began.SerializeToString()))
        for iteration, tag, value in _tests(source.store):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            file.write(events.event(iteration, summary.SerializeToString()))

        def take(table: ExportedTable, results: Iterator[bytes]) -> None:
            file.writelines(results)

        source.write([tables[name] for name in _TABLES], events, take)
    return [path]


def _tests(store: Store) -> Iterator[Tuple[int, str, float]]:
    for (net, output), (iterations, values) in store.tests().items():
        for iteration, value in zip(iterations.tolist(), values.tolist()):
            if not math.isnan(value):
                yield iteration, f"test/{net}/{output}", value


def _record(data: bytes) -> bytes:
    """Return a record of an event file: its length and its content, each with its checksum."""
    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return b"".join([length, checks[0], data, checks[1]])


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


class _Template(NamedTuple):
    """A summary of scalars, serialized, and where in it the bytes of each value are."""

    content: np.ndarray
    places: np.ndarray

    def filled(self, values: np.ndarray) -> bytes:
        content = self.content.copy()
        content[self.places] = values.astype("<f4").view(np.uint8).reshape(-1, 4)
        return bytes(content)


def _template(tags: Sequence[str]) -> _Template:
    content, ends = bytearray(), []
    for tag in tags:
        value = Summary.Value(tag=tag, simple_value=1.0).SerializeToString()
        content += bytes([_VALUE]) + _varint(len(value)) + value
        ends.append(len(content))  # a value ends with its four bytes
    places = np.array(ends, np.int64)[:, None] + np.arange(-4, 0)
    return _Template(np.frombuffer(bytes(content), np.uint8), places)


class _Events:
    """Makes events of a part's rows.

    The scalars of an iteration have the same tags as those of the one before, nearly always: they
    are serialized once, and then only the numbers are put into their places.
    """

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self._templates: Dict[Any, _Template] = {}

    def __call__(self, connection: Any, part: Part) -> bytes:
        columns = columns_of(connection, part)
        if not columns:
            return b""
        if part.table.name == "histograms":
            return b"".join(self._histograms(connection, columns))
        tags_of, first = _SCALARS[part.table.name]
        at = np.array(columns[1])
        starts = [0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), len(at)]
        # Of the table iterations the scalars alone; None becomes NaN.
        wanted = columns[first : first + _WIDTHS[part.table.name]]
        values = np.array(wanted, np.float64)
        found = []
        for start, end in zip(starts, starts[1:]):
            own = tuple(column[start:end] for column in columns[2:first])
            block = values[:, start:end].T.reshape(-1)
            there = ~np.isnan(block)
            key = (part.table.name, own, there.tobytes())
            template = self._templates.get(key)
            if template is None:
                tags = [tag for tag, is_there in zip(tags_of(own), there) if is_there]
                template = self._templates[key] = _template(tags)
            found.append(self.event(columns[1][start], template.filled(block[there])))
        return b"".join(found)

    def event(self, iteration: int, summary: bytes) -> bytes:
        """Return the record of an event."""
        event = Event(wall_time=self.clock.time(iteration), step=iteration).SerializeToString()
        return _record(event + bytes([_SUMMARY]) + _varint(len(summary)) + summary)

    def _histograms(self, connection: Any, columns: Columns) -> Iterator[bytes]:
        """Yield histograms with the recorded bins, and the exact sums where figures tell them."""
        for session, iteration, parameter, name, quantity, low, high, counts in zip(*columns):
            row = (session, iteration, parameter, quantity)
            sums = connection.execute(_SUMS, row).fetchall()
            value = Summary.Value(
                tag=f"{quantity}/{name}",
                histo=_histogram(low, high, json.loads(counts), *(sums[0] if sums else ())),
            )
            yield self.event(iteration, Summary(value=[value]).SerializeToString())


_SUMS = (
    "SELECT f.mean * p.count, f.l2 * f.l2 FROM figures f JOIN parameters p"
    " USING (session, parameter)"
    " WHERE session = ? AND iteration = ? AND parameter = ? AND quantity = ?"
)


def _of_run(own: Tuple[Any, ...]) -> List[str]:
    return list(TAGS.values())


def _of_updates(own: Tuple[Any, ...]) -> List[str]:
    return [tag for name in own[1] for tag in (f"local_rate/{name}", f"update_to_data/{name}")]


def _of_figures(own: Tuple[Any, ...]) -> List[str]:
    _, names, quantities = own
    return [f"{q}_{figure}/{name}" for name, q in zip(names, quantities) for figure in FIGURES]


# By table: what its scalars are called, and its first column of them.
_SCALARS: Dict[str, Tuple[Callable[[Tuple[Any, ...]], List[str]], int]] = {
    "iterations": (_of_run, 2),
    "updates": (_of_updates, 4),
    "figures": (_of_figures, 5),
}


_WIDTHS = {"iterations": len(TAGS), "updates": 2, "figures": len(FIGURES)}


def _histogram(
    low: float,
    high: float,
    bins: List[int],
    total: Optional[float] = None,
    squares: Optional[float] = None,
) -> Any:
    width = (high - low) / len(bins)
    edges = [low + width * (index + 1) for index in range(len(bins) - 1)] + [high]
    return HistogramProto(
        min=low,
        max=high,
        num=sum(bins),
        sum=_sum(bins, edges, width, 1) if total is None else total,
        sum_squares=_sum(bins, edges, width, 2) if squares is None else squares,
        # The first bin of an event file reaches from minus infinity to its limit.
        bucket_limit=[low, *edges],
        bucket=[0.0, *map(float, bins)],
    )


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
