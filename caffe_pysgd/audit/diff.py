"""Comparing what two audits recorded: of one update, and of two whole runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from caffe_pysgd.audit.ledger import HASHED
from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.schema import OF_AN_UPDATE
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError

# Times are never the same; the ratio is made of two norms that are compared, and older audits have
# one of 0 for BatchNorm's statistics.
_NOT_COMPARED = ("pass_seconds", "update_seconds", "ratio")

_WITHIN = ("element", "quantity", "stage")  # further parts of a key

# What says most about where a difference comes from, first.
_QUANTITIES = ("gradient", "clipped", "normalized", "regularized", "update", "data")

Key = Tuple[int, str]
"""A parameter's number, -1 for the whole net, and what is recorded of it."""


@dataclass(frozen=True)
class Divergence:
    """A value that two audits recorded differently; None where one recorded nothing.

    Attributes:
        parameter: the parameter's display name; empty for what is of the whole net.
        what: which value.
        a, b: in the first audit and in the second.
    """

    parameter: str
    what: str
    a: Any
    b: Any

    def __str__(self) -> str:
        of = f"{self.parameter}: " if self.parameter else ""
        return f"{of}{self.what} {_shown(self.a)} against {_shown(self.b)}"


@dataclass(frozen=True)
class Compared:
    """What a comparison of two audits found.

    Attributes:
        iterations: how many were compared and are the same.
        first, last: the first and the last iteration that both have.
        iteration: where they diverge; None where they do not, or before the first.
        differences: what is different there; empty where they do not diverge.
    """

    iterations: int
    first: int
    last: int
    iteration: Optional[int]
    differences: List[Divergence]

    @property
    def same(self) -> bool:
        """Whether all that both recorded is the same."""
        return not self.differences

    @property
    def parameters(self) -> List[str]:
        """The parameters at which they diverge."""
        return list(dict.fromkeys(one.parameter for one in self.differences if one.parameter))


def compare_audits(a: Path, b: Path) -> Compared:
    """Return where two runs diverge: the first iteration of which both recorded something else.

    What only one of them recorded is not compared: figures of one at every iteration, of the other
    at every tenth, or hashes of the weights at different intervals.

    Raises:
        UserError: a file is no audit, or the two have nothing in common.
    """
    with open_audit(a) as one, open_audit(b) as other:
        names = [p.name for p in one.parameters()]
        theirs = [p.name for p in other.parameters()]
        if names != theirs:
            missing = sorted(set(names) ^ set(theirs)) or names
            some = ", ".join(str(name)[:60] for name in missing[:3])
            raise UserError(f"{a} and {b}: are of different nets: {some}")
        common = sorted(set(_iterations(one)) & set(_iterations(other)))
        if not common:
            raise UserError(f"{a} and {b}: have no iteration in common")
        first, last = common[0], common[-1]
        start = _initial_divergences(one, other)
        if start:
            return Compared(0, first, last, None, start)
        for done, iteration in enumerate(common):
            values, others = recorded_values(one, iteration), recorded_values(other, iteration)
            both = [
                key
                for key in values.keys() & others.keys()
                if values[key] is not None and others[key] is not None
            ]
            found = divergences(names, {k: values[k] for k in both}, {k: others[k] for k in both})
            if found:
                return Compared(done, first, last, iteration, found)
        return Compared(len(common), first, last, None, [])


def _iterations(store: Store) -> List[int]:
    span = store.span()
    if span is None:
        raise UserError(f"{store.path}: holds no iteration")
    return store.iterations(*span)


def _initial_divergences(one: Store, other: Store) -> List[Divergence]:
    """Compare the hashes of the weights that both began with, if at the same place."""
    begins = [store.sessions()[0] for store in (one, other)]
    if begins[0].start_iteration != begins[1].start_iteration:
        return []
    hashes = [
        store.manifest(begin.session).get("initial_weights", {}).get("parameters", {})
        for store, begin in zip((one, other), begins)
    ]
    return [
        Divergence(name, "initial weights", hashes[0][name], hashes[1][name])
        for name in hashes[0]
        if name in hashes[1] and hashes[0][name] != hashes[1][name]
    ]


def recorded_values(store: Store, iteration: int, session: Optional[int] = None) -> Dict[Key, Any]:
    """Return everything that was recorded of one update, value by value, times left out.

    Args:
        store: the audit.
        iteration: which update.
        session: of which session; of the one that led to the present weights if not given.
    """
    values: Dict[Key, Any] = {}
    for table in ("iterations", *OF_AN_UPDATE):
        columns = [name for name in HASHED[table] if name not in _NOT_COMPARED]
        for row in store.rows(table, session=session, iteration=iteration):
            told = {name: row[name] for name in columns if name != "iteration"}
            number = told.pop("parameter", -1)
            of = "".join(f"{told.pop(name)} " for name in _WITHIN if name in told)
            of = f"element {of}" if table == "probes" else of
            of = f"histogram of {of}" if table == "histograms" else of
            values.update({(number, f"{of}{name}"): value for name, value in told.items()})
    return values


def recorded_scores(store: Store, iteration: int, session: int) -> Dict[Key, Any]:
    """Return the mean test scores before an update."""
    values: Dict[Key, Any] = {}
    for row in store.rows("tests", session=session, iteration=iteration):
        output = f"test net {row['net']} {row['output']}"
        place = sum(what.startswith(f"{output} ") for _, what in values)
        values[-1, f"{output} {place}"] = row["value"]
    return values


def divergences(names: List[str], a: Dict[Key, Any], b: Dict[Key, Any]) -> List[Divergence]:
    """Return where values differ or only one has them, the most telling first.

    Args:
        names: the parameters' display names.
        a, b: what was recorded.
    """
    keys = [key for key in a.keys() | b.keys() if key not in a or key not in b or a[key] != b[key]]
    return [
        Divergence(names[number] if number >= 0 else "", what, a.get((number, what)),
                   b.get((number, what)))
        for number, what in sorted(keys, key=_importance)
    ]  # fmt: skip


def _importance(key: Key) -> Tuple[int, bool, int, str]:
    """Return a key to sort by: what explains most comes first.

    That is the rate, then the parameters in Caffe's order, each in the order of the update, with
    statistics before probes and histograms; then what is of the whole net.
    """
    number, what = key
    if what == "rate":
        return (-1, False, 0, what)
    words = what.split()
    places = [place for place, name in enumerate(_QUANTITIES) if name in words]
    place = min(places, default=len(_QUANTITIES))
    beside = words[0] in ("element", "histogram")
    return (number if number >= 0 else 1 << 31, beside, place, what)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:16]}..."
    return "nothing" if value is None else repr(value)
