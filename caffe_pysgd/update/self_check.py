"""Whether a compiled pass has, on this very machine, the bits of Caffe's own operations.

Processors, compilers and BLAS builds differ from those that a pass was tested with. So each runs
once over combinations of special values beside the operations that it stands for.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Dict, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.bits import other_bits
from caffe_pysgd.update.fused import FusedKernels, FusedUpdate, Leaves
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.policies import Schedule
from caffe_pysgd.update.rules.base import UpdateRule
from caffe_pysgd.update.rules.checked import is_own
from caffe_pysgd.update.stages import stages

F = np.float32

# Both zeros, and an ordinary number; a denormal, what is no number, where a square overflows and
# underflows, the smallest normal, and the neighbour of 1. Of the former every combination is tried,
# of all so many that it is not felt.
_FEW = (-0.0, 0, -0.75)
_VALUES = (*_FEW, 1, np.inf, np.nan, 2.0**-149, -(2.0**64), 2.0**-75, -(2.0**-126), 1 + 2.0**-23)
_COMBINATIONS = 1000
_RATE, _DECAY, _ITERATION = F(0.01), F(0.0005), 0


_FOUND: Dict[Tuple[object, ...], str] = {}


def first_difference(
    kernels: FusedKernels, name: str, rule: UpdateRule, h: HyperParameters, decay: str
) -> str:
    """Return the first case in which the fused update and the single operations differ, or "".

    Args:
        kernels: those that fuse, and that have Caffe's own operations.
        name, rule: the rule.
        h: the hyper-parameters with which it is used.
        decay: ``L2`` or ``L1``.
    """
    iter_size = 3 if h.scales_gradients else 1  # where nothing is scaled, that is another pass
    weight_decay = h.weight_decay or _DECAY
    h = replace(h, iter_size=iter_size, weight_decay=weight_decay, regularization_type=decay)
    key = kernels.rounds_once, kernels.exact, type(rule), h
    if key not in _FOUND:
        _FOUND[key] = _compare(kernels, name, rule, h)
    return _FOUND[key]


def _compare(kernels: FusedKernels, name: str, rule: UpdateRule, h: HyperParameters) -> str:
    count = len(rule.slots) + 2
    few = np.array(list(product(_FEW, repeat=count)), F).T
    some = np.random.RandomState(count).choice(np.array(_VALUES, F), (count, _COMBINATIONS))
    table = np.concatenate([few, some], axis=1)
    arrays = dict(zip(("data", "diff", *rule.slots), table.copy()))
    parameter = _parameter(rule, h, arrays)
    fused = kernels.fuse(name, rule, [parameter], checked=not is_own(rule))
    if fused is None:
        return kernels.unfused[name]
    if fused.takes_powers and not kernels.exact:
        return ""
    tables = [table]
    if fused.takes_norms:  # over what is not a number, one would hide all else
        tables.append(np.where(np.abs(table) < 2, table, F(-0.75)))
    found = (_differ(kernels, fused, rule, h, arrays, table) for table in tables)
    return next(filter(None, found), "")


def _differ(
    kernels: FusedKernels,
    fused: FusedUpdate,
    rule: UpdateRule,
    h: HyperParameters,
    arrays: Dict[str, Floats],
    table: Floats,
) -> str:
    """Compare on a table: a row for each of the arrays, which are those of the fused update."""
    expected = _one_after_the_other(kernels, rule, h, dict(zip(arrays, table.copy())))
    for leaves, measure in product(Leaves, (False, True)):
        for array, row in zip(arrays.values(), table):
            array[...] = row
        fused.run(np.array([_RATE]), _ITERATION, F(1), F(1) / F(h.iter_size), leaves, measure)
        left = dict(expected)
        if leaves is Leaves.ZEROS:
            left["diff"] = np.zeros_like(arrays["diff"])
        elif leaves is Leaves.ANYTHING:
            left["diff"] = arrays["diff"]
        for what, found in arrays.items():
            differ = np.flatnonzero(other_bits(left[what], found))
            if differ.size:
                case = differ[0]
                given = ", ".join(f"{n} {float(v)!r}" for n, v in zip(arrays, table[:, case]))
                return (
                    f"{what} is {float(found[case])!r} where Caffe's operations give "
                    f"{float(left[what][case])!r} ({given})"
                )
    return ""


def _one_after_the_other(
    kernels: Kernels, rule: UpdateRule, h: HyperParameters, arrays: Dict[str, Floats]
) -> Dict[str, Floats]:
    """Do with single operations what a pass does; return the arrays after it."""
    p = _parameter(rule, h, arrays)
    p.kernels = kernels
    for _ in stages(p, replace(h, clip_gradients=F(-1)), _RATE, None, kernels):
        pass
    return {"data": p.data, "diff": p.diff, **p.state}


def _parameter(rule: UpdateRule, h: HyperParameters, arrays: Dict[str, Floats]) -> Parameter:
    state = {slot: arrays[slot] for slot in rule.slots}
    p = Parameter("self-check", arrays["data"], arrays["diff"], rule=rule, h=h, state=state)
    p.schedule = Schedule(h)
    p.schedule.iteration, p.schedule.value = _ITERATION, _RATE
    p.decay, p.trusted = h.weight_decay, True
    return p
