"""Comparing two ledgers: where two runs part, without the weights of either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from caffe_pysgd.audit.store import FIGURES, Store
from caffe_pysgd.errors import UserError

# Of an iteration, what two runs of the same arithmetic have in common; times are not among it.
_OF_ITERATIONS = ("rate", "loss", "smoothed_loss", "gradient_l2", "clip_factor", "weights_hash")

Values = Dict[Tuple[str, str], Any]
"""By (parameter, or empty for the iteration's own; what it is)."""


@dataclass(frozen=True)
class Parted:
    """Something that differs: of which parameter (empty: the iteration), what, and both values."""

    parameter: str
    what: str
    a: Any
    b: Any

    def __str__(self) -> str:
        """Return it as a line."""
        of = f"{self.parameter}: " if self.parameter else ""
        return f"{of}{self.what} {_shown(self.a)} against {_shown(self.b)}"


@dataclass(frozen=True)
class Compared:
    """What a comparison of two ledgers found.

    Attributes:
        iterations: how many were compared and are the same.
        first, last: the first and the last iteration that both have.
        iteration: where they part; None where they do not, or before the first.
        differences: what is different there; empty where they do not part.
    """

    iterations: int
    first: int
    last: int
    iteration: Optional[int]
    differences: List[Parted]

    @property
    def same(self) -> bool:
        """Whether all that both recorded is the same."""
        return not self.differences

    @property
    def parameters(self) -> List[str]:
        """The parameters at which they part."""
        return list(dict.fromkeys(one.parameter for one in self.differences if one.parameter))


def compare_ledgers(a: Path, b: Path) -> Compared:
    """Return where two runs part: the first iteration of which both recorded something different.

    What only one of them recorded is not compared: figures of one at every iteration, of the other
    at every tenth, or hashes of the weights at different intervals.

    Raises:
        UserError: a file is no audit, or the two have nothing in common.
    """
    with Store(a) as one, Store(b) as other:
        first, last = _common_range(one, other)
        names = [[p.name for p in store.parameters()] for store in (one, other)]
        if names[0] != names[1]:
            missing = sorted(set(names[0]) ^ set(names[1])) or names[0]
            raise UserError(f"{a} and {b}: are of different nets: {', '.join(missing[:3])}")
        start = [Parted(n, "initial weights", x, y) for n, x, y in _initial(one, other) if x != y]
        if start:
            return Compared(0, first, last, None, start)
        walks = _iterations(one, first, last), _iterations(other, first, last)
        iterations = 0
        for iteration in sorted(walks[0].keys() & walks[1].keys()):
            # A row without figures is read once; with them, iteration by iteration.
            ours, theirs = walks[0][iteration], walks[1][iteration]
            ours.update(_details(one, iteration, names[0]))
            theirs.update(_details(other, iteration, names[0]))
            differences = [
                Parted(*key, value, theirs[key])
                for key, value in ours.items()
                if key in theirs and theirs[key] != value
            ]
            if differences:
                return Compared(iterations, first, last, iteration, differences)
            iterations += 1
        if not iterations:
            raise UserError(f"{a} and {b}: have no iteration in common")
        return Compared(iterations, first, last, None, [])


def _common_range(one: Store, other: Store) -> Tuple[int, int]:
    ranges = []
    for store in (one, other):
        ((first, last),) = store.query(
            "SELECT min(iteration), max(iteration) FROM current_iterations"
        )
        if first is None:
            raise UserError(f"{store.path}: holds no iteration")
        ranges.append((first, last))
    return max(r[0] for r in ranges), min(r[1] for r in ranges)


def _initial(one: Store, other: Store) -> List[Tuple[str, str, str]]:
    """Return by parameter the hashes of the weights that both began with, if at the same place."""
    begins = [store.sessions()[0] for store in (one, other)]
    if begins[0].start_iteration != begins[1].start_iteration:
        return []
    hashes = [
        store.manifest(begin.session).get("initial_weights", {}).get("parameters", {})
        for store, begin in zip((one, other), begins)
    ]
    return [(name, hashes[0][name], hashes[1][name]) for name in hashes[0] if name in hashes[1]]


def _iterations(store: Store, first: int, last: int) -> Dict[int, Values]:
    sql = (
        f"SELECT iteration, {', '.join(_OF_ITERATIONS)} FROM current_iterations"
        " WHERE iteration BETWEEN ? AND ?"
    )
    return {
        iteration: {("", name): v for name, v in zip(_OF_ITERATIONS, values) if v is not None}
        for iteration, *values in store.query(sql, (first, last))
    }


def _details(store: Store, iteration: int, names: List[str]) -> Values:
    """Return what is recorded of an iteration's parameters."""
    values: Values = {}
    sql = (
        f"SELECT parameter, quantity, {', '.join(FIGURES)} FROM current_figures WHERE iteration = ?"
    )
    for parameter, quantity, *figures in store.query(sql, [iteration]):
        for figure, value in zip(FIGURES, figures):
            values[names[parameter], f"{quantity} {figure}"] = value
    sql = "SELECT parameter, local_rate FROM current_updates WHERE iteration = ?"
    for parameter, rate in store.query(sql, [iteration]):
        values[names[parameter], "local rate"] = rate
    sql = "SELECT parameter, sha256 FROM current_weights WHERE iteration = ?"
    for parameter, sha256 in store.query(sql, [iteration]):
        values[names[parameter], "weights"] = sha256
    return values


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:16]}..."
    return repr(value)
