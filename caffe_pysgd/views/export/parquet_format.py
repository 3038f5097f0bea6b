"""Parquet: one file for each table, with the types of the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, List

import pyarrow
import pyarrow.parquet

from caffe_pysgd.files import replacing
from caffe_pysgd.views.export.tables import (
    ExportedTable,
    Part,
    Source,
    columns_of,
    exported_tables,
)

_TYPES = {"i": pyarrow.int64(), "r": pyarrow.float64(), "t": pyarrow.string()}


def write(source: Source, folder: Path) -> List[Path]:
    """Write the tables."""
    files = []

    def take(table: ExportedTable, batches: Iterator[Any]) -> None:
        path = folder / f"{table.name}.parquet"
        schema = _schema(table)
        with replacing(path) as place, pyarrow.parquet.ParquetWriter(place, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        files.append(path)

    source.write(exported_tables(), _batch_of, take)
    return files


def _schema(table: ExportedTable) -> Any:
    return pyarrow.schema(
        [
            pyarrow.field(name, _TYPES[kind.lower()], nullable=kind.isupper())
            for name, kind in zip(table.columns, table.kinds)
        ]
    )


def _batch_of(connection: Any, part: Part) -> Any:
    schema = _schema(part.table)
    columns = columns_of(connection, part) or [()] * len(schema)
    arrays = [pyarrow.array(values, field.type) for values, field in zip(columns, schema)]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)
