"""CSV: one file for each table, numbers as Python writes them, so that each reads back the same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import List

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
                writer.writerows(rows)
        files.append(path)
    return files
