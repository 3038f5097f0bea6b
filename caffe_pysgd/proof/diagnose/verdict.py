"""The verdict: what is different, in words, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from caffe_pysgd.proof.diagnose.faults import Fault
from caffe_pysgd.proof.diagnose.search import Residual


@dataclass(frozen=True)
class Named:
    """One thing that is different: a fault, or several that cannot be told apart here.

    Attributes:
        faults: the fault; where there are several, any of them explains what was seen.
        evidence: what was seen.
    """

    faults: Tuple[Fault, ...]
    evidence: str = ""

    def __str__(self) -> str:
        lines = [", or ".join(fault.title for fault in self.faults)]
        if len(self.faults) > 1:
            lines[0] += " (the same here)"
        if self.evidence:
            lines.append(f"  seen: {self.evidence}")
        lines += [f"  fix: {fault.fix}" for fault in self.faults]
        return "\n".join(lines)


@dataclass(frozen=True)
class Drift:
    """How far two loops are apart after each iteration: the L2 norm over all weights.

    Attributes:
        distances: after each iteration.
        moved: how far the reference is from its first weights at the end.
    """

    distances: Tuple[float, ...]
    moved: float

    def exponent(self) -> Optional[float]:
        """Return p where the distance grows like the iterations to the power of p."""
        points = [(k, d) for k, d in enumerate(self.distances, 1) if d > 0]
        if len(points) < 3:
            return None
        iterations, distances = np.log(np.array(points)).T
        return float(np.polyfit(iterations, distances, 1)[0])

    def distances_in_words(self) -> str:
        """Return a sentence with all of them."""
        listed = ", ".join(f"{d:.2g}" for d in self.distances)
        return (
            f"The weights are {listed} apart (L2 norm) after iteration 1 to {len(self.distances)}; "
            f"the training itself moved them by {self.moved:.2g}."
        )

    def growth_in_words(self) -> List[str]:
        """Return what is to be expected of later iterations, if there is enough to say so."""
        power = self.exponent()
        if power is None:
            return []
        guess = self.distances[-1] * (100 / len(self.distances)) ** power
        return [
            f"So far that grows like the iterations to the power of {power:.1f}: {guess:.1g} after "
            "100, if it went on so.",
            "It will not: once it turns a max pooling or a ReLU, it jumps by orders of magnitude, "
            "and when is luck (docs/manual-sgd.md).",
        ]


@dataclass(frozen=True, repr=False)
class Verdict:
    """What :func:`caffe_pysgd.diagnose` found.

    Attributes:
        kind: ``exact``, ``rounding``, ``fault`` or ``unexplained``.
        named: what is different, the gradients first.
        iterations: how many were compared.
        differ: how many of the weights differ after the last one.
        values: how many there are.
        reference: how far Caffe's update is from what the loop did with its gradients.
        explained: how far the update with the named faults is from it.
        drift: how the two runs grow apart.
        alike: what would make no difference here, and what it would take: (fault, what).
        notes: what else was noticed.
    """

    kind: str
    named: List[Named]
    iterations: int
    differ: int
    values: int
    reference: Optional[Residual]
    explained: Optional[Residual]
    drift: Drift
    alike: List[Tuple[Fault, str]] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the loop is correct: exact, or off by nothing but rounding."""
        return self.kind in ("exact", "rounding")

    @property
    def keys(self) -> List[Tuple[str, ...]]:
        """The short names of what is different; together those that cannot be told apart."""
        return [tuple(fault.key for fault in one.faults) for one in self.named]

    def __str__(self) -> str:
        parts = [*map(str, self.named), *self._figures(), *self.notes, *self._alike()]
        return "\n".join([*parts, f"diagnose: {self._summary()}"])

    def __repr__(self) -> str:
        return f"<Verdict: {self._summary()}>"

    def _repr_html_(self) -> str:
        return f"<b>{escape(self._summary())}</b><pre>{escape(str(self))}</pre>"

    def _summary(self) -> str:
        after = f"after {self.iterations} iterations"
        if self.kind == "exact":
            return f"exact: 0 of {self.values} values differ {after}"
        if self.kind == "rounding":
            return f"rounding only: {self.differ} of {self.values} values differ {after}"
        if self.kind == "unexplained":
            return f"another update, and no known fault explains it; {self.differ} of " + (
                f"{self.values} values differ {after}"
            )
        titles = "; ".join(", or ".join(f.title for f in one.faults) for one in self.named)
        number = len(self.named)
        return f"{number} fault{'s' if number > 1 else ''}: {titles}"

    def _figures(self) -> List[str]:
        if self.kind == "exact":
            return []
        lines = [self.drift.distances_in_words()]
        if self.kind == "rounding":
            lines.insert(0, "The formula is Caffe's; only the rounding is another.")
            lines += self.drift.growth_in_words()
        if self.reference:
            line = f"Caffe's update, from the same gradients, is off by {far(self.reference)}"
            if self.explained and self.kind == "fault":
                line += f"; with what is named above, by {far(self.explained)}"
            lines.append(line + ".")
        return lines

    def _alike(self) -> List[str]:
        if not self.alike:
            return []
        by_need: Dict[str, List[str]] = {}
        for fault, need in self.alike:
            by_need.setdefault(need, []).append(fault.title)
        lines = ["What this run cannot tell, because it makes no difference here:"]
        lines += [f"  takes {need}: {'; '.join(titles)}" for need, titles in by_need.items()]
        return lines

    def as_plain(self) -> Dict[str, Any]:
        """Return the verdict as plain Python values, for JSON."""
        return {
            "kind": self.kind,
            "ok": self.ok,
            "summary": self._summary(),
            "faults": [
                {
                    "any_of": [vars_of(fault) for fault in one.faults],
                    "evidence": one.evidence,
                }
                for one in self.named
            ],
            "iterations": self.iterations,
            "differ": self.differ,
            "values": self.values,
            "reference": _plain(self.reference),
            "explained": _plain(self.explained),
            "distances": list(self.drift.distances),
            "no_difference_here": [fault.key for fault, _ in self.alike],
            "notes": self.notes,
        }


def vars_of(fault: Fault) -> Dict[str, str]:
    """Return a fault's words."""
    return {"key": fault.key, "title": fault.title, "fix": fault.fix}


def far(residual: Residual) -> str:
    """Return in words how far off a model is."""
    return f"{residual.relative:.2g} of the update (at most {residual.ulp:.3g} ulp)"


def _plain(residual: Optional[Residual]) -> Optional[Dict[str, float]]:
    if residual is None:
        return None
    return {"relative": residual.relative, "ulp": residual.ulp, "roundings": residual.roundings}
