"""The policy ``plateau``: the rate falls when the loss no longer does.

Not of BVLC's Caffe, but of forks: ``GetLearningRate`` in ``sgd_solver.cpp`` of SSD's. Unlike the
other policies it looks at the smoothed loss, and what it has seen is part of the solver's state.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

from caffe_pysgd.errors import SettingError
from caffe_pysgd.update.hyperparameters import HyperParameters

F = np.float32


class PlateauState(NamedTuple):
    """What the policy remembers.

    Attributes:
        minimum_loss: the least smoothed loss so far.
        iter_last_event: the iteration of the last event: a new minimum, or a step.
    """

    minimum_loss: np.float32 = np.finfo(F).max
    iter_last_event: int = 0


UNSEEN = PlateauState()


def advance(
    h: HyperParameters, i: int, step: int, state: PlateauState, smoothed_loss: np.float32
) -> Tuple[int, PlateauState]:
    """Return step and state after evaluating the rate at iteration ``i``.

    The n-th step is taken when ``plateau_winsize[n]`` iterations have passed since the last event.
    """
    if smoothed_loss < state.minimum_loss:
        state = PlateauState(F(smoothed_loss), i)
    if step < len(h.plateau_winsize) and i >= state.iter_last_event + h.plateau_winsize[step]:
        return step + 1, state._replace(iter_last_event=i)
    return step, state


def check(h: HyperParameters) -> None:
    """Refuse what the policy cannot be computed with.

    Raises:
        SettingError: naming the field.
    """
    if h.lr_policy != "plateau":
        return
    if not h.plateau_winsize or min(h.plateau_winsize) < 1:
        allowed = "the iterations to wait for each step, 1 or more (lr_policy 'plateau')"
        raise SettingError("plateau_winsize", list(h.plateau_winsize), allowed)
    if not h.gamma >= 0:
        raise SettingError("gamma", h.gamma, "0 or more (lr_policy 'plateau')")


def check_own(own: HyperParameters, common: HyperParameters) -> None:
    """Refuse parameters with a plateau of their own: the solver's state holds one.

    Raises:
        SettingError: naming the field.
    """
    if own.lr_policy != "plateau":
        return
    if common.lr_policy != "plateau" or own.plateau_winsize != common.plateau_winsize:
        raise SettingError("lr_policy", "plateau", "to be given for all parameters together")
