"""CSV: one file for each table, numbers as Python writes them, so that each reads back the same.

A text that a spreadsheet would take for a formula, such as a layer called ``=cmd``, begins with a
single quote, as spreadsheets themselves write it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List

from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.tables import (
    ExportedTable,
    Part,
    Source,
    columns_of,
    exported_tables,
)


def write(source: Source, folder: Path) -> List[Path]:
    """Write the tables; a NULL is an empty field."""
    files = []

    def take(table: ExportedTable, texts: Iterator[str]) -> None:
        path = folder / f"{table.name}.csv"
        with replacing(path) as place, open(place, "w", newline="", encoding="utf-8") as file:
            file.write(",".join(table.columns) + "\n")
            file.writelines(texts)
        files.append(path)

    source.write(exported_tables(), _text_of, take)
    return files


def _text_of(connection: Any, part: Part) -> str:
    columns = columns_of(connection, part)
    if not columns:
        return ""
    cells = [_CELLS[kind](column) for kind, column in zip(part.table.kinds, columns)]
    return "\n".join(map(",".join, zip(*cells))) + "\n"


def _numbers(column: Iterable[Any]) -> Iterator[str]:
    return map(repr, column)


def _numbers_or_null(column: Iterable[Any]) -> Iterator[str]:
    return ("" if value is None else repr(value) for value in column)


def _texts(column: Iterable[Any]) -> Iterator[str]:
    known: Dict[Any, str] = {None: ""}  # names are few, and come again and again
    for text in column:
        if text not in known:
            known[text] = _quoted(text)
        yield known[text]


def _quoted(text: str) -> str:
    field = io.StringIO()
    csv.writer(field, lineterminator="").writerow(
        [f"'{text}" if text[:1] in _OF_FORMULAS else text]
    )
    return field.getvalue()


_CELLS: Dict[str, Callable[[Iterable[Any]], Iterator[str]]] = {
    "i": _numbers,
    "r": _numbers,
    "R": _numbers_or_null,
    "t": _texts,
    "T": _texts,
}
_OF_FORMULAS = tuple("=+-@\t\r")
