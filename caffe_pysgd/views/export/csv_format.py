"""CSV: one file for each table, numbers as Python writes them, so that each reads back the same.

A text that a spreadsheet would take for a formula, such as a layer called ``=cmd``, begins with a
single quote, as spreadsheets themselves write it.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, List, Tuple

from caffe_pysgd.audit.store import Store
from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.tables import batches, exported_tables


def write(store: Store, folder: Path) -> List[Path]:
    """Write the tables; a NULL is an empty field."""
    files = []
    for table in exported_tables():
        path = folder / f"{table.name}.csv"
        with replacing(path) as place, open(place, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            for rows in batches(store, table):
                writer.writerows(map(_no_formulas, rows))
        files.append(path)
    return files


def _no_formulas(row: Tuple[Any, ...]) -> List[Any]:
    return [f"'{v}" if isinstance(v, str) and v[:1] in _OF_FORMULAS else v for v in row]


_OF_FORMULAS = tuple("=+-@\t\r")
