"""The page: a template, a style sheet, a few scripts and uPlot, all put into one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

from caffe_pysgd.views.rendering import read_asset, render
from caffe_pysgd.views.report.comparison import comparison
from caffe_pysgd.views.report.facts import facts, lede
from caffe_pysgd.views.report.gathering import RunRecord
from caffe_pysgd.views.report.no_script import curve, last_values
from caffe_pysgd.views.report.payload import payload
from caffe_pysgd.views.report.remarks import remarks
from caffe_pysgd.views.report.verdicts import verdicts

_HERE = Path(__file__).parent
_SCRIPTS = ("data.js", "save.js", "charts.js", "ridges.js", "stripes.js", "main.js")
_MOST_ROWS = 200


def page(records: Sequence[RunRecord]) -> str:
    """Return the HTML that shows runs.

    Raises:
        UserError: Jinja2 is not installed.
    """
    return render(
        _HERE / "assets/template.html",
        "report",
        title=_title(records),
        lede=lede(records),
        runs=[
            {
                "name": record.name,
                "facts": facts(record),
                "verdicts": verdicts(record),
                "remarks": remarks(record),
                "curve": curve(record),
                "last": last_values(record),
                "tables": _tables(record),
                "manifest": _manifest(record),
            }
            for record in records
        ],
        comparison=comparison(records) if len(records) > 1 else [],
        thinning=_thinning(records),
        has_figures=any(
            parameter.figures or parameter.updates
            for record in records
            for parameter in record.parameters
        ),
        scripts=[read_asset(f"assets/{name}") for name in _SCRIPTS],
        payload=payload(records),
    )


def _title(records: Sequence[RunRecord]) -> str:
    if len(records) > 4:
        return f"{len(records)} runs: {records[0].name} … {records[-1].name}"
    return " · ".join(record.name for record in records)


def _thinning(records: Sequence[RunRecord]) -> str:
    whole = max(record.points.width for record in records)
    single = max(record.parameter_points.width for record in records)
    if whole == single == 1:
        return "Each point is one iteration, as it was recorded."
    parts = []
    if whole > 1:
        parts.append(f"each point stands for {whole:,} iterations")
    if single > 1:
        what = "for" if parts else "each point stands for"
        unit = "" if parts else " iterations"
        parts.append(f"{what} {single:,}{unit} where single parameters are shown")
    return (
        f"This is a long run: {' and '.join(parts)}. A line is the last value of each stretch, the"
        " band around it reaches from the smallest value to the largest; nothing is averaged."
    )


def _tables(record: RunRecord) -> List[Dict[str, Any]]:
    sessions = {
        "title": "Sessions",
        "columns": ["session", "from iteration", "started", "ended"],
        "numbers": {"session", "from iteration"},
        "rows": [
            [
                s.session,
                f"{s.start_iteration:,}",
                s.started,
                s.ended or "not said: killed, or running",
            ]
            for s in record.sessions
        ],
    }
    tables = [sessions]
    if record.events:
        rows = [[f"{e['iteration']:,}", e["kind"], e["message"]] for e in record.events]
        tables.append(_table("Events", ["iteration", "event", "what"], rows))
    if record.snapshots:
        rows = [
            [f"{s['iteration']:,}", s["path"], s["sha256"] or "not taken"] for s in record.snapshots
        ]
        tables.append(_table("Snapshots", ["iteration", "snapshot", "SHA-256"], rows))
    return tables


def _table(title: str, columns: List[str], rows: List[List[str]]) -> Dict[str, Any]:
    table: Dict[str, Any] = {"title": title, "columns": columns, "numbers": {"iteration"}}
    table["rows"] = rows[:_MOST_ROWS]
    if len(rows) > _MOST_ROWS:
        table["more"] = f"{len(rows) - _MOST_ROWS:,} more are in the audit."
    return table


def _manifest(record: RunRecord) -> List[Dict[str, str]]:
    """Return the manifest in parts that unfold: long texts by themselves, the rest together."""
    parts, rest = [], {}
    for key, value in record.manifest.items():
        if isinstance(value, str) and "\n" in value:
            parts.append({"title": f"Manifest: {key}", "text": value})
        else:
            rest[key] = value
    whole = json.dumps(rest, indent=2, ensure_ascii=False)
    return [{"title": "Manifest", "text": whole}, *parts]
