"""What the page says of a run in three sentences: its exactness, its ledger, its events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.views.report.gathering import RunRecord

EXACTNESS = ("verify", "shadow")
ALARMS = ("nonfinite", "skipped")

_WORST_FIRST = ("bad", "open", "good")
_NO_VERDICT = (OSError, ValueError, KeyError, TypeError, AttributeError)


class Verdict(NamedTuple):
    """A sentence with a mark: ``good``, ``bad``, or ``open`` where nobody has looked."""

    state: str
    title: str
    text: str
    command: Optional[str] = None


def verdicts(record: RunRecord, check: bool) -> List[Verdict]:
    """Return what is known of a run's exactness, of its ledger and of its events.

    Args:
        check: whether to check the ledger.
    """
    ledger = _ledger(record, check)
    return [_exactness(record), ledger, *_replay(record), _events(record)]


def _exactness(record: RunRecord) -> Verdict:
    """Return what ``verify`` or ``shadow`` found; what speaks against the run comes first."""
    found = [verdict for kind in EXACTNESS for verdict in _comparison(record, kind)]
    if found:
        return sorted(found, key=lambda verdict: _WORST_FIRST.index(verdict.state))[0]
    return Verdict(
        "open",
        "Exactness not checked",
        "Nobody has compared this run with the native solver. To do it:",
        f"caffe-pysgd verify {record.manifest.get('source') or 'X'} --json"
        f" {_beside(record, 'verify')}",
    )


def _comparison(record: RunRecord, kind: str) -> Iterator[Verdict]:
    path = _beside(record, kind)
    if not path.is_file():
        return
    try:
        found = _read(path)
        differ, values = int(found["differ"]), int(found["values"])
        iterations, ulp = int(found["iterations"]), int(found.get("max_ulp", 0))
    except _NO_VERDICT:
        yield Verdict("open", "Exactness unknown", f"{path.name} beside the audit is no verdict.")
        return
    text = (
        f"{differ:,} of {values:,} values differ, max {ulp:,} ulp, after {iterations:,} "
        f"iterations ({path.name})."
    )
    if differ:
        yield Verdict("bad", "Not the native solver's bits", text)
    else:
        yield Verdict("good", "The native solver's bits", text)


def _replay(record: RunRecord) -> Iterator[Verdict]:
    """Yield what came of training again, where somebody did."""
    path = _beside(record, "replay")
    if not path.is_file():
        return
    try:
        found = _read(path)
        differs, text = found["difference"], str(found["verdict"])
    except _NO_VERDICT:
        yield Verdict("open", "Replay unknown", f"{path.name} beside the audit is no verdict.")
        return
    text = text[:1].upper() + text[1:]
    if differs:
        yield Verdict("bad", "Trained again, it differs", f"{text} ({path.name}).")
    else:
        yield Verdict("good", "Trained again, it is the same", f"{text} ({path.name}).")


def _beside(record: RunRecord, kind: str) -> Path:
    return record.store.path.with_name(f"{kind}.json")


def _read(path: Path) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _ledger(record: RunRecord, check: bool) -> Verdict:
    if not check:
        command = f"caffe-pysgd audit check {record.store.path}"
        return Verdict("open", "Ledger not checked", "To do it:", command)
    found = check_ledger(record.store.path)
    if not found.intact:
        where = "" if found.iteration is None else f" at iteration {found.iteration:,}"
        return Verdict("bad", f"Ledger broken{where}", f"{str(found).capitalize()}.")
    return Verdict(
        "good",
        "Ledger intact",
        f"{found.iterations:,} recorded updates follow each other, as they were recorded. Last hash"
        f" {found.last_hash[:16]}…",
    )


def _events(record: RunRecord) -> Verdict:
    alarms: List[Dict[str, Any]] = [e for e in record.events if e["kind"] in ALARMS]
    if alarms:
        first = alarms[0]
        return Verdict(
            "bad",
            f"{len(alarms):,} alarm{'s' if len(alarms) > 1 else ''}",
            f"The first, at iteration {first['iteration']:,}: {first['message']}",
        )
    nonfinite = any(
        bool((figures["nonfinite"].last > 0).any())
        for parameter in record.parameters
        for figures in parameter.figures.values()
    )
    if nonfinite:
        return Verdict("bad", "Values that are not finite", "See the parameters below.")
    return Verdict("good", "Nothing out of the way", "Every recorded value is finite.")
