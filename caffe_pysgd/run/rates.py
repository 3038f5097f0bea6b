"""The rates of a run before it starts: of every parameter group, at chosen iterations."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import UserError
from caffe_pysgd.run.run import Run
from caffe_pysgd.update import HyperParameters
from caffe_pysgd.update.policies import Schedule, schedule_of


class GroupRates(NamedTuple):
    """What the parameters that share it have for a rate.

    Attributes:
        names: the parameters.
        policy: the ``lr_policy``.
        rates: the local rate, ``rate * lr_mult``, at each iteration; 0 where they are frozen.
    """

    names: Tuple[str, ...]
    policy: str
    rates: Floats


def rates(run: Run, iterations: Sequence[int]) -> List[GroupRates]:
    """Return the rates that a run from iteration 0 on has, with the update's own bits.

    Args:
        run: which need not have been trained.
        iterations: in ascending order.

    Returns:
        one entry for all parameters with the same rates, in Caffe's order.

    Raises:
        UserError: a policy of the user's own fails, or one looks at the loss.
    """
    found: Dict[Any, Tuple[List[str], HyperParameters, float, Any]] = {}
    for parameter, group in zip(run.parameters, run.groups):
        h = HyperParameters(**{**run.h.as_plain(), **group.hyperparameters()})  # type: ignore[arg-type]
        if h.lr_policy == "plateau":
            raise UserError(f"{run.source}: the rate of lr_policy 'plateau' follows the loss")
        frozen = (group.freeze_until or 0, group.freeze_from)
        key = (schedule_of(h), parameter.lr_mult, frozen)
        found.setdefault(key, ([], h, parameter.lr_mult, frozen))[0].append(parameter.name)
    return [
        GroupRates(tuple(names), h.lr_policy, _local_rates(h, lr_mult, frozen, iterations))
        for names, h, lr_mult, frozen in found.values()
    ]


def _local_rates(
    h: HyperParameters, lr_mult: float, frozen: Any, iterations: Sequence[int]
) -> Floats:
    schedule, values = Schedule(h), np.zeros(len(iterations), np.float32)
    until, start = frozen
    for place, iteration in enumerate(iterations):
        schedule.catch_up(iteration)
        rate = schedule.rate(iteration) * np.float32(lr_mult)
        trained = iteration >= until and (start is None or iteration < start)
        values[place] = rate if trained else 0
    return values
