"""The tables of an audit: one SQLite file per run, described for its readers in docs/audit.md."""

from __future__ import annotations

from typing import Dict, Tuple

APPLICATION_ID = 0x70736764  # in the file's header; says what the file is
VERSION = 1

# Kinds of columns: i a whole number, r a real number, t a text; capital where NULL is allowed. They
# decide how a row is packed for its hash, so what is here is part of the format.
COLUMNS: Dict[str, Dict[str, str]] = {
    "sessions": {
        "session": "i",
        "started": "t",
        "start_iteration": "i",
        "manifest": "t",
        "hash": "t",
        "ended": "T",
        "closing": "T",
    },
    "parameters": {
        "session": "i",
        "parameter": "i",
        "name": "t",
        "shape": "t",
        "count": "i",
        "lr_mult": "r",
        "decay_mult": "r",
        "rule": "t",
    },
    "iterations": {
        "session": "i",
        "iteration": "i",
        "rate": "r",
        "loss": "R",
        "smoothed_loss": "R",
        "gradient_l2": "R",
        "clip_factor": "R",
        "pass_seconds": "R",
        "update_seconds": "R",
        "weights_hash": "T",
        "previous": "t",
        "hash": "t",
    },
    "updates": {
        "session": "i",
        "iteration": "i",
        "parameter": "i",
        "local_rate": "r",
        "ratio": "R",
    },
    "figures": {
        "session": "i",
        "iteration": "i",
        "parameter": "i",
        "quantity": "t",
        "l2": "r",
        "mean": "r",
        "min": "r",
        "max": "r",
        "zeros": "i",
        "nonfinite": "i",
    },
    "weights": {"session": "i", "iteration": "i", "parameter": "i", "sha256": "t"},
    "histograms": {
        "session": "i",
        "iteration": "i",
        "parameter": "i",
        "quantity": "t",
        "low": "r",
        "high": "r",
        "counts": "t",
    },
    "probes": {
        "session": "i",
        "iteration": "i",
        "parameter": "i",
        "element": "i",
        "stage": "t",
        "value": "R",
        "bits": "i",
    },
    "tests": {
        "session": "i",
        "iteration": "i",
        "net": "i",
        "position": "i",
        "output": "t",
        "value": "R",
    },
    "snapshots": {"session": "i", "iteration": "i", "path": "t", "sha256": "T"},
    "events": {"session": "i", "iteration": "i", "number": "i", "kind": "t", "message": "t"},
}

KEYS: Dict[str, Tuple[str, ...]] = {
    "sessions": ("session",),
    "parameters": ("session", "parameter"),
    "iterations": ("session", "iteration"),
    "updates": ("session", "iteration", "parameter"),
    "figures": ("session", "iteration", "parameter", "quantity"),
    "weights": ("session", "iteration", "parameter"),
    "histograms": ("session", "iteration", "parameter", "quantity"),
    "probes": ("session", "iteration", "parameter", "element", "stage"),
    "tests": ("session", "iteration", "net", "position"),
    "snapshots": ("session", "iteration", "path"),
    "events": ("session", "iteration", "number"),
}

# What the columns of ``iterations`` are called where others show them, as in TensorBoard; in the
# order of the table's columns.
TAGS: Dict[str, str] = {
    "rate": "run/rate",
    "loss": "loss/batch",
    "smoothed_loss": "loss/averaged",
    "gradient_l2": "run/gradient_l2",
    "clip_factor": "run/clip_factor",
    "pass_seconds": "seconds/forward_and_backward",
    "update_seconds": "seconds/update",
}

# What belongs to an update, and what comes between two of them: before update i, or after it with
# the number i + 1, as Caffe counts where it tests and snapshots.
OF_AN_UPDATE = ("updates", "figures", "weights", "histograms", "probes")
IN_BETWEEN = ("tests", "snapshots", "events")

_TYPES = {"i": "INTEGER", "r": "REAL", "t": "TEXT"}


def creation() -> str:
    """Return the SQL that makes the tables and the views of an empty file, in one transaction."""
    statements = [
        "BEGIN",
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {VERSION}",
        *(_table(name) for name in COLUMNS),
        *(_view(name) for name in ("iterations", *OF_AN_UPDATE, *IN_BETWEEN)),
        "COMMIT",
    ]
    return ";\n".join(statements) + ";\n"


def _table(name: str) -> str:
    columns = [
        f"{column} {_TYPES[kind.lower()]}{'' if kind.isupper() else ' NOT NULL'}"
        for column, kind in COLUMNS[name].items()
    ]
    body = ", ".join([*columns, f"PRIMARY KEY ({', '.join(KEYS[name])})"])
    # Without rowid the row is the only copy of its key: no index beside it can say otherwise.
    return f"CREATE TABLE {name} ({body}) WITHOUT ROWID"


def _view(name: str) -> str:
    """Return the view of what led to the present weights.

    Where a later session went on from an earlier iteration, what was recorded after it is not part
    of that. What a snapshot says of iteration i is true before update i, so it counts still.
    """
    overtaken = "n.start_iteration < t.iteration"
    if name not in IN_BETWEEN:
        overtaken = "n.start_iteration <= t.iteration"
    again = ""
    if name == "tests":
        again = (
            " AND NOT EXISTS (SELECT 1 FROM tests n WHERE n.session > t.session AND"
            " n.iteration = t.iteration AND n.net = t.net AND n.position = t.position)"
        )
    return (
        f"CREATE VIEW current_{name} AS SELECT t.* FROM {name} t WHERE NOT EXISTS (SELECT 1 FROM"
        f" sessions n WHERE n.session > t.session AND {overtaken}){again}"
    )
