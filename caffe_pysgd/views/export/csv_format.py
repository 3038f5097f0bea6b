"""CSV: one file for each table, numbers as Python writes them, so that each reads back the same.

A text that a spreadsheet would take for a formula, such as a layer called ``=cmd``, begins with a
single quote, as spreadsheets themselves write it.
"""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np

from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.shortest import NOTHING, padded, shortest
from caffe_pysgd.views.export.tables import (
    Columns,
    ExportedTable,
    Part,
    Source,
    columns_of,
    exported_tables,
)

_TOGETHER = 4000  # rows, so that what is made of them stays in a core's cache


def write(source: Source, folder: Path) -> List[Path]:
    """Write the tables; a NULL is an empty field."""
    files = []

    def take(table: ExportedTable, texts: Iterator[bytes]) -> None:
        path = folder / f"{table.name}.csv"
        with replacing(path) as place, open(place, "wb") as file:
            file.write(f"{','.join(table.columns)}\n".encode())
            file.writelines(texts)
        files.append(path)

    source.write(exported_tables(), _text_of, take)
    return files


def _text_of(connection: Any, part: Part) -> bytes:
    columns = columns_of(connection, part)
    rows = len(columns[0]) if columns else 0
    return b"".join(
        _lines(part.table.kinds, [column[start : start + _TOGETHER] for column in columns])
        for start in range(0, rows, _TOGETHER)
    )


def _lines(kinds: Sequence[str], columns: Columns) -> bytes:
    cells: List[np.ndarray] = []
    for kind, column in zip(kinds, columns):
        cells += [_CELLS[kind](column), _column_of(",", len(column))]
    cells[-1] = _column_of("\n", len(columns[0]))
    lines: bytes = np.concatenate(cells, axis=1).tobytes()
    return lines.translate(None, bytes([NOTHING]))


def _column_of(text: str, rows: int) -> np.ndarray:
    return np.full((rows, 1), ord(text), np.uint8)


def _real_numbers(column: Sequence[Any]) -> np.ndarray:
    return shortest(np.frombuffer(struct.pack(f"{len(column)}d", *column), np.float64))


def _real_numbers_or_null(column: Sequence[Any]) -> np.ndarray:
    values = np.array(column, np.float64)  # None becomes NaN, which SQLite does not know
    cells = shortest(values)
    cells[np.isnan(values)] = NOTHING
    return cells


def _whole_numbers(column: Sequence[Any]) -> np.ndarray:
    return _known(column, repr)


def _texts(column: Sequence[Any]) -> np.ndarray:
    return _known(column, _quoted)


def _known(column: Sequence[Any], write: Callable[[Any], str]) -> np.ndarray:
    """Write each value once: names and counts are few, and come again and again."""
    places = {value: place for place, value in enumerate(dict.fromkeys(column))}
    cells = padded(map(write, places))
    if len(places) == 1:
        return np.broadcast_to(cells, (len(column), cells.shape[1]))
    return cells[np.fromiter(map(places.__getitem__, column), np.intp, len(column))]


def _quoted(text: Optional[str]) -> str:
    if text is None:
        return ""
    field = io.StringIO()
    csv.writer(field, lineterminator="").writerow(
        [f"'{text}" if text[:1] in _OF_FORMULAS else text]
    )
    return field.getvalue()


_CELLS: Dict[str, Callable[[Sequence[Any]], np.ndarray]] = {
    "i": _whole_numbers,
    "r": _real_numbers,
    "R": _real_numbers_or_null,
    "t": _texts,
    "T": _texts,
}
_OF_FORMULAS = tuple("=+-@\t\r")
