"""What the page says of a run in three sentences: its exactness, its ledger, its events."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np

from caffe_pysgd.audit.series import Series
from caffe_pysgd.views.report.gathering import RunRecord

EXACTNESS = ("verify", "shadow")
ALARMS = ("nonfinite", "skipped")

_CAFFES_RULES = ("sgd", "nesterov", "adagrad", "rmsprop", "adadelta", "adam")
_WORST_FIRST = ("bad", "open", "good")


class Verdict(NamedTuple):
    """A sentence with a mark: ``good``, ``bad``, or ``open`` where nobody has looked."""

    subject: str
    state: str
    title: str
    text: str
    command: Optional[str] = None


def verdicts(record: RunRecord) -> List[Verdict]:
    """Return what is known of a run's exactness, of its ledger and of its events."""
    return [_exactness(record), _ledger(record), *_replay(record), _events(record)]


def _exactness(record: RunRecord) -> Verdict:
    """Return what ``verify`` or ``shadow`` found; what speaks against the run comes first."""
    found = [verdict for kind in EXACTNESS for verdict in _comparison(record, kind)]
    if found:
        return sorted(found, key=lambda verdict: _WORST_FIRST.index(verdict.state))[0]
    beyond = _beyond_caffe(record)
    if beyond:
        text = f"Caffe has no {beyond}: there is no native run to compare with."
        return Verdict("exactness", "open", "Exactness not checked", text)
    text = "Nobody has compared this run with the native solver."
    source = _source(record)
    if source is None:
        return Verdict("exactness", "open", "Exactness not checked", text)
    command = f"caffe-pysgd verify {quote(source)} --json {quote(str(_beside(record, 'verify')))}"
    return Verdict("exactness", "open", "Exactness not checked", f"{text} To do it:", command)


def _beyond_caffe(record: RunRecord) -> str:
    """Return what of a run the native solver cannot do; of older audits the rule alone tells."""
    said = record.manifest.get("beyond_caffe")
    rule = record.manifest.get("rule")
    if said is None and rule and rule not in _CAFFES_RULES:
        return f"rule '{rule}'"
    return str(said or "")


def _source(record: RunRecord) -> Optional[str]:
    """Return what the run was started from, if it is still there."""
    said = record.manifest.get("source")
    if not isinstance(said, str):
        return None
    began = Path(str(record.manifest.get("working_directory", "")), said)
    return next((str(path) for path in (Path(said), began) if path.is_file()), None)


def _comparison(record: RunRecord, kind: str) -> Iterator[Verdict]:
    path = _beside(record, kind)
    if not path.is_file():
        return
    try:
        found = _read(path)
        differ, values = int(found["differ"]), int(found["values"])
        iterations, ulp = int(found["iterations"]), int(found.get("max_ulp", 0))
    except Exception:  # anything may stand in such a file
        yield Verdict(
            "exactness", "open", "Exactness unknown", f"{path.name} beside the audit is no verdict."
        )
        return
    text = (
        f"{differ:,} of {values:,} values differ, max {ulp:,} ulp, after {iterations:,} "
        f"iterations ({path.name})."
    )
    if differ:
        yield Verdict("exactness", "bad", "Not the native solver's bits", text)
    else:
        yield Verdict("exactness", "good", "The native solver's bits", text)


def _replay(record: RunRecord) -> Iterator[Verdict]:
    """Yield what came of training again, where somebody did."""
    path = _beside(record, "replay")
    if not path.is_file():
        return
    try:
        found = _read(path)
        differs, text = found["difference"], str(found["verdict"])
    except Exception:  # anything may stand in such a file
        yield Verdict(
            "replay", "open", "Replay unknown", f"{path.name} beside the audit is no verdict."
        )
        return
    text = text[:1].upper() + text[1:]
    if differs:
        yield Verdict("replay", "bad", "Trained again, it differs", f"{text} ({path.name}).")
    else:
        yield Verdict("replay", "good", "Trained again, it is the same", f"{text} ({path.name}).")


def _beside(record: RunRecord, kind: str) -> Path:
    return record.store.path.with_name(f"{kind}.json")


def _read(path: Path) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _ledger(record: RunRecord) -> Verdict:
    found = record.checked
    if found is None:
        command = f"caffe-pysgd audit check {quote(str(record.store.path))}"
        return Verdict("ledger", "open", "Ledger not checked", "To do it:", command)
    if not found.intact:
        where = "" if found.iteration is None else f" at iteration {found.iteration:,}"
        return Verdict("ledger", "bad", f"Ledger broken{where}", f"{str(found).capitalize()}.")
    return Verdict(
        "ledger",
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
            "events",
            "bad",
            f"{len(alarms):,} alarm{'s' if len(alarms) > 1 else ''}",
            f"The first, at iteration {first['iteration']:,}: {first['message']}",
        )
    nonfinite = any(
        bool((_highest(figures["nonfinite"]) > 0).any())
        for parameter in record.parameters
        for figures in parameter.figures.values()
    )
    if nonfinite:
        return Verdict("events", "bad", "Values that are not finite", "See the parameters below.")
    return Verdict("events", "good", "Nothing out of the way", "Every recorded value is finite.")


def _highest(series: Series) -> np.ndarray:
    return series.last if series.high is None else series.high
