"""The update of one parameter, stage by stage: ``SGDSolver::ApplyUpdate``.

The order is that of ``src/caffe/solvers/sgd_solver.cpp``. Clipping comes before the division by
``iter_size``, a quirk of Caffe's that is kept.
"""

from __future__ import annotations

from enum import Enum
from typing import Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules.checked import call

F = np.float32
MINUS_ONE, ONE = F(-1), F(1)


class Stage(Enum):
    """The stages of one update, in the order in which an observer sees them.

    The first comes for all parameters before the others, because clipping looks at all of them; the
    others come parameter by parameter, and not for one that is frozen.
    """

    GRADIENT = "gradient"  # diff as forward and backward left it, summed over iter_size passes
    CLIPPED = "clipped"  # diff after clip_gradients
    NORMALIZED = "normalized"  # diff after the division by iter_size
    REGULARIZED = "regularized"  # diff after weight decay
    UPDATE = "update"  # the update value; data still hold the old weights
    DATA = "data"  # the new weights


class Clipping(NamedTuple):
    """What clipping did: the L2 norm of the whole gradient, and the factor it was scaled by."""

    l2norm_diff: np.float32
    scale_factor: np.float32


def stages(
    p: Parameter, h: HyperParameters, rate: np.float32, clipping: Optional[Clipping], k: Kernels
) -> Iterator[Tuple[Stage, Floats]]:
    """Take one parameter from its gradient to its new weights; yield what each stage leaves.

    At the end ``diff`` holds the update value.

    Args:
        p: the parameter, with its local rate and decay.
        h, rate: the common hyper-parameters, and the common rate.
        clipping: what ``clip_gradients`` does to all gradients.
        k: the vector operations.

    Raises:
        UserError: a user's own rule returned something that is no update value.
    """
    if clipping:
        k.scal(clipping.scale_factor, p.diff)
    clip_values(p, h, rate)
    yield Stage.CLIPPED, p.diff

    if h.iter_size != 1:
        k.scal(ONE / F(h.iter_size), p.diff)
    yield Stage.NORMALIZED, p.diff

    if p.decay != 0 and not p.rule.decoupled_decay:
        k.axpy(p.decay, _penalty(p, k), p.diff)
    yield Stage.REGULARIZED, p.diff

    update = call(p.rule, p)
    yield Stage.UPDATE, update

    k.axpy(MINUS_ONE, update, p.data)
    yield Stage.DATA, p.data

    if update is not p.diff:
        k.copy(update, p.diff)


def _penalty(p: Parameter, k: Kernels) -> Floats:
    """Return what the weight decay adds ``decay`` times: L2, the weights; L1, their signs."""
    if p.h.regularization_type == "L2":
        return p.data
    sign = k.scratch(p.data)
    k.sign(p.data, sign)
    return sign


def find_clipping(
    parameters: Sequence[Parameter], h: HyperParameters, k: Kernels
) -> Optional[Clipping]:
    """Return how ``clip_gradients`` scales all diffs, or None where it leaves them as they are.

    Caffe's clipping: their common L2 norm shall be at most ``clip_gradients``.
    """
    if h.clip_gradients < 0 or h.clip_type != "norm":
        return None
    sumsq_diff = F(0)
    for parameter in parameters:
        sumsq_diff += k.dot(parameter.diff, parameter.diff)
    l2norm_diff = np.sqrt(sumsq_diff)
    if not l2norm_diff > h.clip_gradients:
        return None
    return Clipping(l2norm_diff, h.clip_gradients / l2norm_diff)


def clip_values(parameter: Parameter, h: HyperParameters, rate: np.float32) -> None:
    """Clip the elements of a diff, where ``clip_type`` says so; Caffe has neither type.

    ``value`` limits every element to ``[-clip_gradients, clip_gradients]``. ``adjustable`` limits
    it to ``[-clip_gradients / rate, clip_gradients / rate]``, so that the update is bounded and not
    the gradient: Kim, Lee, Lee, "Accurate image super-resolution using very deep convolutional
    networks", CVPR 2016 (asked for in BVLC/caffe issue 4671).
    """
    limit = h.clip_gradients
    if not clips_values(h) or (h.clip_type == "adjustable" and rate == 0):
        return
    if h.clip_type == "adjustable":
        limit = limit / rate
    np.clip(parameter.diff, -limit, limit, out=parameter.diff)


def clips_values(h: HyperParameters) -> bool:
    """Return whether every element of a diff is clipped for itself."""
    return bool(h.clip_gradients >= 0 and h.clip_type != "norm")
