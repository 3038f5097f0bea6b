"""Small trainings that are recorded, by whichever host."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Dict, List, Tuple

from caffe_pysgd import get_solver
from helpers.hosts import train
from helpers.nets import SMALL, write_solver

TESTED = {"test_iter": 3, "test_interval": 2, "snapshot": 4}


def write_recorded(
    directory: Path, audit: str = "{}", net: str = SMALL, name: str = "run", **fields: Any
) -> Path:
    """Write a net, a solver and a YAML that asks for an audit in a folder of that name."""
    write_solver(directory, net, name, **fields)
    path = directory / f"{name}.yaml"
    path.write_text(
        f"solver: {name}.prototxt\nrun_dir: {name}\naudit: {audit}\n"
        f"snapshots: {{prefix: {name}_snap, overwrite: true}}\n"
    )
    return path


def record(cli: Any, source: Path, host: str) -> Path:
    """Train to the end with a host; return the audit."""
    failed = train(cli, source, host)
    assert not failed, failed
    return source.with_suffix("") / "audit.sqlite"


def record_iterations(source: Path, iterations: int) -> None:
    """Train for a while with the drop-in solver, and end the session."""
    solver = get_solver(source)
    solver.step(iterations)
    solver.close()


def rows(file: Path, sql: str, *values: Any) -> List[Tuple[Any, ...]]:
    """Return what a query finds."""
    connection = sqlite3.connect(file)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def change(file: Path, sql: str, *values: Any) -> None:
    """Change a record behind the recorder's back."""
    connection = sqlite3.connect(file)
    connection.execute(sql, values)
    connection.commit()
    connection.close()


def dump(file: Path, tables: Any) -> Dict[str, List[Tuple[Any, ...]]]:
    """Return all rows of some tables."""
    return {table: rows(file, f"SELECT * FROM {table}") for table in tables}
