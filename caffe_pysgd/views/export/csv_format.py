"""CSV: one file for each table, numbers in the fewest digits that read back the same.

A text that a spreadsheet would take for a formula, such as a layer called ``=cmd``, begins with a
single quote, as spreadsheets themselves write it.

An audit has tens of millions of numbers. Rows of JSON differ from rows of CSV in brackets and
quotes alone, and orjson writes them in a fraction of the time that ``csv`` takes: so it writes what
holds no text that CSV would have to quote. It writes ``1e-5`` where ``csv`` writes ``1e-05``.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import re
from collections import deque
from contextlib import ExitStack
from importlib import import_module
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple

from caffe_pysgd.files import cannot_be_written, replacing
from caffe_pysgd.views.export.tables import (
    ExportedTable,
    Part,
    Source,
    batches_of,
    exported_tables,
)

_TOGETHER = 500  # rows: all that is made of them stays in a core's cache
_OF_FORMULAS = tuple("=+-@\t\r")
_PLAIN = re.compile(r"[\w./:][\w./: -]*")

Rows = Sequence[Tuple[Any, ...]]


def write(source: Source, folder: Path) -> List[Path]:
    """Write the tables; a NULL is an empty field."""
    tables = exported_tables()
    paths = {table.name: folder / f"{table.name}.csv" for table in tables}

    def take(table: ExportedTable, parts: Iterator[None]) -> None:
        try:
            deque(parts, maxlen=0)
        except OSError as error:
            raise cannot_be_written(paths[table.name], error) from error

    with ExitStack() as stack:
        files = {}
        for table in tables:
            place = stack.enter_context(replacing(paths[table.name]))
            files[table.name] = file = stack.enter_context(open(place, "wb"))
            file.write(f"{','.join(table.columns)}\n".encode())
            file.flush()
        source.write(tables, _Writer(files), take)
    return list(paths.values())


class _Writer:
    """Writes parts, from whichever process, one after the other.

    The files were opened before the processes began: they share the place up to which it is
    written. That saves sending all text to one process.
    """

    def __init__(self, files: Mapping[str, IO[bytes]]) -> None:
        self._files = files
        context = multiprocessing.get_context("fork")
        self._turn, self._next = context.Condition(), context.RawValue("q", 0)
        try:
            self._dumps = import_module("orjson").dumps
        except ImportError:
            self._dumps = None

    def __call__(self, connection: Any, part: Part) -> None:
        batches, file = batches_of(connection, part, _TOGETHER), self._files[part.table.name]
        texts = [self._text_of(part.table.kinds, rows) for rows in batches]
        with self._turn:
            self._turn.wait_for(lambda: self._next.value == part.number)
            file.writelines(texts)
            file.flush()
            self._next.value += 1
            self._turn.notify_all()

    def _text_of(self, kinds: Sequence[str], rows: Rows) -> bytes:
        columns = [map(itemgetter(k), rows) for k, kind in enumerate(kinds) if kind in "tT"]
        texts = set(chain.from_iterable(columns)) - {None}
        text = None
        if self._dumps and all(map(_is_plain, texts)):
            text = _by_orjson(self._dumps, rows)
        return _by_csv(rows, any(map(_is_formula, texts))) if text is None else text


def _is_plain(text: Any) -> bool:
    return isinstance(text, str) and bool(_PLAIN.fullmatch(text))


def _is_formula(text: Any) -> bool:
    return isinstance(text, str) and text.startswith(_OF_FORMULAS)


def _by_orjson(dumps: Callable[[Rows], bytes], rows: Rows) -> Optional[bytes]:
    """Return rows of plain texts; None where orjson would not write them right."""
    try:
        json = dumps(rows)
    except TypeError:  # what no column of an audit should hold
        return None
    # JSON has no infinity: orjson writes null for it, too.
    if b"null" in json and json.count(b"null") != sum(row.count(None) for row in rows):
        return None
    lines = json[2:-2].replace(b"],[", b"\n").replace(b",null", b",")
    return lines.translate(None, b'"') + b"\n"


def _by_csv(rows: Rows, has_formulas: bool) -> bytes:
    if has_formulas:
        rows = [tuple(f"'{cell}" if _is_formula(cell) else cell for cell in row) for row in rows]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()
