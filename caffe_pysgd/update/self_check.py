"""Whether a compiled pass has, on this very machine, the bits of Caffe's own operations.

Processors, compilers and BLAS builds differ from those that a pass was tested with. So each runs
once over combinations of special values beside the operations that it stands for.
"""

from __future__ import annotations

from itertools import product
from typing import Dict, List, Tuple, Type

import numpy as np

from caffe_pysgd.compare import other_bits
from caffe_pysgd.update import gradient
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import FusedKernels, Kernels, Leaves, Task
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules.base import ParameterStep, UpdateRule

F = np.float32

# Both zeros, a denormal, what is no number, where a square overflows and underflows, the smallest
# normal, and the neighbour of 1. Of four arrays the first few are combined: it shall not be felt.
_VALUES = np.array([0, -0.0, 2.0**-149, -0.75, 1, -(2.0**64), np.inf, np.nan], F)
_VALUES = np.append(_VALUES, np.array([2.0**-75, -(2.0**-126), 1 + 2.0**-23], F))
_FEW = 8
_RATE, _ITERATION, _NORMALIZATION = F(0.01), 0, F(1) / F(3)


_FOUND: Dict[Tuple[bool, type, str], str] = {}


def first_difference(kernels: FusedKernels, rule: Type[UpdateRule], decay: str) -> str:
    """Return the first case in which the fused update and the single operations differ, or "".

    Args:
        kernels: those that fuse, and that have Caffe's own operations.
        rule: the rule's class.
        decay: ``L2`` or ``L1``.
    """
    key = kernels.rounds_once, rule, decay
    if key not in _FOUND:
        _FOUND[key] = _compare(kernels, rule(), decay)
    return _FOUND[key]


def _compare(kernels: FusedKernels, made: UpdateRule, decay: str) -> str:
    h = HyperParameters(
        base_lr=_RATE, momentum=0.9, weight_decay=0.0005, regularization_type=decay, iter_size=3
    )
    names = ("data", "diff", *made.slots)
    values = _VALUES if len(names) < 4 else _VALUES[:_FEW]
    table = np.array(list(product(values, repeat=len(names))), F).T
    expected = _one_after_the_other(kernels, made, h, dict(zip(names, table.copy())))
    for leaves in Leaves:
        for measure in (False, True):
            found = dict(zip(names, table.copy()))
            _fused(kernels, made, h, found, leaves, measure)
            left = dict(expected)
            if leaves is Leaves.ZEROS:
                left["diff"] = np.zeros_like(found["diff"])
            elif leaves is Leaves.ANYTHING:
                left["diff"] = found["diff"]
            for name in names:
                differ = np.flatnonzero(other_bits(left[name], found[name]))
                if differ.size:
                    case = differ[0]
                    given = ", ".join(f"{n} {float(v)!r}" for n, v in zip(names, table[:, case]))
                    return (
                        f"{name} is {float(found[name][case])!r} where Caffe's operations give "
                        f"{float(left[name][case])!r} ({given})"
                    )
    return ""


def _one_after_the_other(
    kernels: Kernels, rule: UpdateRule, h: HyperParameters, arrays: Dict[str, np.ndarray]
) -> Dict[str, np.ndarray]:
    """Do with single operations what a pass does; return the arrays after it."""
    parameter = Parameter("self-check", arrays["data"], arrays["diff"])
    state = {slot: arrays[slot] for slot in rule.slots}
    decay = gradient.local_decay(parameter, h)
    gradient.normalize(parameter, h, kernels)
    if not rule.decoupled_decay:
        gradient.regularize(parameter, h, decay, kernels)
    step = ParameterStep(
        parameter.name, parameter.diff, parameter.data, state, _RATE, decay, _ITERATION, h, kernels
    )
    value = rule.update(step)
    kernels.axpy(F(-1), value, parameter.data)
    return {"data": parameter.data, "diff": value.copy(), **state}


def _fused(
    kernels: Kernels,
    rule: UpdateRule,
    h: HyperParameters,
    arrays: Dict[str, np.ndarray],
    leaves: Leaves,
    measure: bool,
) -> None:
    parameter = Parameter("self-check", arrays["data"], arrays["diff"])
    state = {slot: arrays[slot] for slot in rule.slots}
    decay = gradient.local_decay(parameter, h)
    tasks: List[Task] = [Task(parameter, state, h, decay, rule.decoupled_decay)]
    fused = kernels.fuse(rule.name, rule.slots, tasks)
    assert fused is not None
    fused.run([_RATE], _ITERATION, F(1), _NORMALIZATION, leaves, measure)
