"""The tables of an audit as an export writes them."""

from __future__ import annotations

from typing import Any, Iterator, List, NamedTuple, Tuple

from caffe_pysgd.audit.schema import COLUMNS
from caffe_pysgd.audit.store import Store

_OF_SESSIONS = ("sessions", "parameters")  # all are given; there are no current ones among them


class ExportedTable(NamedTuple):
    """A table: its name, and of each column its name and kind as in ``audit.schema.COLUMNS``.

    ``parameters``' names are put beside their numbers, for who reads one table by itself.
    """

    name: str
    columns: List[str]
    kinds: List[str]
    sql: str


def exported_tables() -> List[ExportedTable]:
    """Return all tables of an audit."""
    return [_table(name) for name in COLUMNS]


def batches(store: Store, table: ExportedTable) -> Iterator[List[Tuple[Any, ...]]]:
    """Yield a table's rows, so many at a time that memory holds them.

    Raises:
        UserError: the file is damaged.
    """
    return store.batches(table.sql)


def _table(name: str) -> ExportedTable:
    columns, kinds = list(COLUMNS[name]), list(COLUMNS[name].values())
    source = name if name in _OF_SESSIONS else f"current_{name}"
    selected = [f't."{column}"' for column in columns]
    join = ""
    if "parameter" in columns and name != "parameters":
        at = columns.index("parameter") + 1
        columns.insert(at, "name")
        kinds.insert(at, "t")
        selected.insert(at, "p.name")
        join = " JOIN parameters p ON p.session = t.session AND p.parameter = t.parameter"
    sql = f"SELECT {', '.join(selected)} FROM {source} t{join} ORDER BY 1, 2"
    return ExportedTable(name, columns, kinds, sql)
