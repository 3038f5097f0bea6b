"""What the shell completes of a recorded run: its parameters and its iterations.

The audit is asked with SQLite alone: ``audit.store`` takes NumPy along, and with it longer than a
person waits for a TAB.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, List
from urllib.parse import quote

import click

_MOST = 100  # of what a shell offers, nobody reads more


def recorded_parameters(context: click.Context, option: Any, incomplete: str) -> List[str]:
    """Return the parameters of the run that the line names, such as ``conv1/0``."""
    return _ask(context, "SELECT DISTINCT name FROM parameters WHERE name LIKE ?", incomplete)


def recorded_iterations(context: click.Context, option: Any, incomplete: str) -> List[str]:
    """Return the iterations of the run that the line names."""
    sql = "SELECT DISTINCT iteration FROM iterations WHERE iteration LIKE ?"
    return _ask(context, sql, incomplete)


def _ask(context: click.Context, sql: str, incomplete: str) -> List[str]:
    given = [context.params.get("file"), context.params.get("run"), *context.args]
    run = next((Path(one) for one in given if one), None)  # click leaves it in args as a rule
    if run is None:
        return []
    path = run / "audit.sqlite" if run.is_dir() else run
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as audit:
            rows = audit.execute(f"{sql} LIMIT {_MOST}", [f"{incomplete}%"]).fetchall()
    except sqlite3.Error:
        return []  # no audit: nothing to offer, and a TAB is no place for a message
    return [str(value) for (value,) in rows]
