"""The tables of an audit as an export writes them, in parts that are read by several processes."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count, islice
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
    TypeVar,
)

from caffe_pysgd.audit.scan import Progress, in_processes
from caffe_pysgd.audit.schema import COLUMNS, KEYS, OF_AN_UPDATE
from caffe_pysgd.audit.series import current_iterations
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import SettingError, UserError, one_of

_OF_SESSIONS = ("sessions", "parameters")  # all are given; there are no current ones among them
_TOGETHER = 50_000  # rows, about

Columns = List[Tuple[Any, ...]]
Result = TypeVar("Result")


class ExportedTable(NamedTuple):
    """A table: its name, and of each column its name and kind as in ``audit.schema.COLUMNS``.

    ``parameters``' names are put beside their numbers, for who reads one table by itself.
    """

    name: str
    columns: List[str]
    kinds: List[str]


class Part(NamedTuple):
    """Some rows of a table: how they are asked for, and which part of all it is."""

    table: ExportedTable
    sql: str
    values: Tuple[Any, ...]
    number: int


@dataclass(frozen=True)
class Selection:
    """What of an audit is exported.

    Attributes:
        parameters: patterns of their names, such as ``conv*``; all without any.
        quantities: of which arrays the figures and histograms are wanted; all without any.
        every: only iterations that this divides, of what is recorded at an update.
    """

    parameters: Tuple[str, ...] = ()
    quantities: Tuple[str, ...] = ()
    every: int = 1


EVERYTHING = Selection()


def exported_tables() -> List[ExportedTable]:
    """Return all tables of an audit."""
    return [_table(name) for name in COLUMNS]


def _table(name: str) -> ExportedTable:
    columns, kinds = list(COLUMNS[name]), list(COLUMNS[name].values())
    if "parameter" in columns and name != "parameters":
        at = columns.index("parameter") + 1
        columns.insert(at, "name")
        kinds.insert(at, "t")
    return ExportedTable(name, columns, kinds)


class Source:
    """What is selected of an audit, table by table.

    Args:
        store: the audit.
        selection: of it.
        progress: is told how many parts of how many were written.

    Raises:
        UserError: a pattern fits no parameter, or there is no such quantity.
    """

    def __init__(
        self, store: Store, selection: Selection, progress: Optional[Progress] = None
    ) -> None:
        store.hold()
        self.store, self.selection, self._progress = store, selection, progress
        rows = store.query("SELECT session, parameter, name FROM parameters")
        self._names = {(session, number): name for session, number, name in rows}
        self._chosen = _chosen(store, selection)
        self._check_quantities()
        self._done = self._total = 0

    def _check_quantities(self) -> None:
        if not self.selection.quantities:
            return
        # At the ends of each session: to look at all rows takes as long as to export them.
        ends = "SELECT session, {}(iteration) FROM figures GROUP BY session"
        sql = "SELECT DISTINCT quantity FROM figures WHERE session = ? AND iteration = ?"
        known = {
            quantity
            for end in ("min", "max")
            for row in self.store.query(ends.format(end))
            for (quantity,) in self.store.query(sql, row)
        }
        for quantity in self.selection.quantities:
            if quantity not in known:
                raise SettingError("--quantities", quantity, one_of(sorted(known), quantity))

    def write(
        self,
        tables: Iterable[ExportedTable],
        work: Callable[[Any, Part], Result],
        take: Callable[[ExportedTable, Iterator[Result]], None],
    ) -> None:
        """Have all rows of tables worked on, and each table's results taken in turn.

        Args:
            tables: which.
            work: makes of a connection and a part what is to be written.
            take: writes the results of a table.
        """
        numbers = count()
        parts = {
            table.name: [Part(table, *asked, next(numbers)) for asked in self._asked(table)]
            for table in tables
        }
        self._total = next(numbers)
        with in_processes(self.store, self._total * _TOGETHER // 2, work) as run:
            for table in tables:
                take(table, self._counted(run(parts[table.name])))

    def _counted(self, results: Iterator[Result]) -> Iterator[Result]:
        for result in results:
            yield result
            self._done += 1
            if self._progress:
                self._progress(self._done, self._total)

    def _asked(self, table: ExportedTable) -> Iterator[Tuple[str, Tuple[Any, ...]]]:
        order = ", ".join(f"t.{key}" for key in KEYS[table.name])
        if table.name not in ("iterations", *OF_AN_UPDATE):
            where, values = self._where(table.name)
            source = table.name if table.name in _OF_SESSIONS else f"current_{table.name}"
            yield f"{_select(table, source)} WHERE {where} ORDER BY {order}", values
            return
        # By ranges of the key, which the views' own search for later sessions cannot use.
        iterations, sessions = current_iterations(self.store, table.name)
        if not len(iterations):
            return
        first = (int(sessions[0]), int(iterations[0]))
        of = f"SELECT count(*) FROM {table.name} WHERE session = ? AND iteration = ?"
        ((each,),) = self.store.query(of, first)
        many = max(1, _TOGETHER // max(1, each))
        for session in sorted(set(sessions.tolist())):
            where, values = self._where(table.name, session)
            sql = (
                f"{_select(table, table.name)} WHERE t.session = ?"
                f" AND t.iteration BETWEEN ? AND ? AND {where} ORDER BY {order}"
            )
            own = iterations[sessions == session].tolist()
            for start in range(0, len(own), many):
                last = own[min(start + many, len(own)) - 1]
                yield sql, (session, own[start], last, *values)

    def _where(self, table: str, session: Optional[int] = None) -> Tuple[str, Tuple[Any, ...]]:
        parts, columns = ["1"], COLUMNS[table]
        values: List[Any] = []
        if session is not None and self.selection.every > 1:
            parts.append("t.iteration % ? = 0")
            values.append(self.selection.every)
        if self._chosen is not None and table == "parameters":
            parts.append(f"t.name IN ({', '.join('?' * len(self._chosen))})")
            values.extend(self._chosen)
        elif self._chosen is not None and "parameter" in columns:
            numbers = [
                number
                for (of, number), name in self._names.items()
                if of == session and name in self._chosen
            ]
            parts.append(f"t.parameter IN ({', '.join(map(str, numbers))})")
        if "quantity" in columns and self.selection.quantities:
            parts.append(f"t.quantity IN ({', '.join('?' * len(self.selection.quantities))})")
            values.extend(self.selection.quantities)
        return " AND ".join(parts), tuple(values)


def _chosen(store: Store, selection: Selection) -> Optional[List[str]]:
    if not selection.parameters:
        return None
    names = [name for (name,) in store.query("SELECT DISTINCT name FROM parameters")]
    chosen: Dict[str, None] = {}
    for pattern in selection.parameters:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(
                f"--param: no parameter is called {pattern!r}; expected {one_of(names, pattern)}"
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _select(table: ExportedTable, source: str) -> str:
    names = ", ".join(
        "p.name" if name not in COLUMNS[table.name] else f't."{name}"' for name in table.columns
    )
    join = " LEFT JOIN parameters p USING (session, parameter)" if "p.name" in names else ""
    return f"SELECT {names} FROM {source} t{join}"


def batches_of(connection: Any, part: Part, size: int) -> Iterator[List[Tuple[Any, ...]]]:
    """Yield the rows of a part, so many at a time."""
    rows = iter(connection.execute(part.sql, part.values))
    return iter(lambda: list(islice(rows, size)), [])


def columns_of(connection: Any, part: Part) -> Columns:
    """Return the rows of a part column by column; nothing where it has none."""
    return list(zip(*connection.execute(part.sql, part.values).fetchall()))
