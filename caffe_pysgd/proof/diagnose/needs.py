"""What a configuration must have for a fault to make a difference."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

from caffe_pysgd.proof.diagnose.evidence import Evidence
from caffe_pysgd.proof.diagnose.faults import Fault
from caffe_pysgd.proof.diagnose.hand_written import rate_at
from caffe_pysgd.update import HyperParameters

Test = Callable[[HyperParameters, Evidence], bool]


def _changing_rate(h: HyperParameters, evidence: Evidence) -> bool:
    rates = {rate_at("policy", h, iteration) for iteration in range(len(evidence.moments) + 1)}
    return len(rates) > 1


def _clipping(h: HyperParameters, evidence: Evidence) -> bool:
    limit = float(h.clip_gradients)
    return limit >= 0 and any(one.squares.sum() > limit**2 for one in evidence.moments)


_NEEDS: Dict[str, Test] = {
    "a momentum": lambda h, evidence: bool(h.momentum != 0),
    "a rate that changes": _changing_rate,
    "an lr_mult other than 1": lambda h, evidence: bool((evidence.lr_mult != 1).any()),
    "a weight_decay": lambda h, evidence: bool(h.weight_decay != 0),
    "a decay_mult other than 1": lambda h, evidence: bool((evidence.decay_mult != 1).any()),
    "biases with decay_mult 0": lambda h, evidence: bool(
        (evidence.decay_mult[evidence.is_bias] == 0).any()
    ),
    "biases with a decay_mult": lambda h, evidence: bool(
        evidence.decay_mult[evidence.is_bias].any()
    ),
    "an iter_size above 1": lambda h, evidence: h.iter_size > 1,
    "gradients longer than clip_gradients": _clipping,
    "a second iteration": lambda h, evidence: len(evidence.moments) > 1,
}
_HIDDEN = "what is named above to be fixed first"


def unmet(faults: List[Fault], h: HyperParameters, evidence: Evidence) -> List[Tuple[Fault, str]]:
    """Return, for faults that make no difference, what is missing for them to make one."""
    missing = [need for need, met in _NEEDS.items() if not met(h, evidence)]
    return [
        (fault, next((need for need in missing if need in fault.needs), _HIDDEN))
        for fault in faults
    ]


def known(need: str) -> bool:
    """Return whether a need can be tested."""
    return need in _NEEDS
