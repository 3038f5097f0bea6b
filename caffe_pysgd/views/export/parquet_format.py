"""Parquet: one file for each table, with the types of the audit."""

from __future__ import annotations

from pathlib import Path
from typing import List

import pyarrow
import pyarrow.parquet

from caffe_pysgd.audit.store import Store
from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.tables import batches, exported_tables

_TYPES = {"i": pyarrow.int64(), "r": pyarrow.float64(), "t": pyarrow.string()}


def write(store: Store, folder: Path) -> List[Path]:
    """Write the tables."""
    files = []
    for table in exported_tables():
        path = folder / f"{table.name}.parquet"
        schema = pyarrow.schema(
            [
                pyarrow.field(name, _TYPES[kind.lower()], nullable=kind.isupper())
                for name, kind in zip(table.columns, table.kinds)
            ]
        )
        with replacing(path) as place, pyarrow.parquet.ParquetWriter(place, schema) as writer:
            for rows in batches(store, table):
                columns = [
                    pyarrow.array(values, field.type) for values, field in zip(zip(*rows), schema)
                ]
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
        files.append(path)
    return files
