"""What happens to a gradient before the rule sees it: clip, normalize, regularize.

The first three stages of Caffe's ``SGDSolver::ApplyUpdate`` (``src/caffe/solvers/sgd_solver.cpp``),
in its order. Clipping comes before the division by ``iter_size``, a quirk of Caffe's that is kept.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.parameter import Parameter

F = np.float32


class Clipping(NamedTuple):
    """What clipping did: the L2 norm of the whole gradient, and the factor it was scaled by."""

    l2norm_diff: np.float32
    scale_factor: np.float32


def clip(parameters: Sequence[Parameter], h: HyperParameters, k: Kernels) -> Optional[Clipping]:
    """Scale all diffs so that their common L2 norm is at most ``clip_gradients``, if it is set.

    Returns:
        what was done, or None where the gradient stayed as it was.
    """
    if h.clip_gradients < 0:
        return None
    sumsq_diff = F(0)
    for parameter in parameters:
        sumsq_diff += k.dot(parameter.diff, parameter.diff)
    l2norm_diff = np.sqrt(sumsq_diff)
    if not l2norm_diff > h.clip_gradients:
        return None
    scale_factor = h.clip_gradients / l2norm_diff
    for parameter in parameters:
        k.scal(scale_factor, parameter.diff)
    return Clipping(l2norm_diff, scale_factor)


def normalize(parameter: Parameter, h: HyperParameters, k: Kernels) -> None:
    """Divide the diff, summed over ``iter_size`` passes, by their number."""
    if h.iter_size != 1:
        k.scal(F(1) / F(h.iter_size), parameter.diff)


def regularize(parameter: Parameter, h: HyperParameters, k: Kernels) -> None:
    """Add the weight decay's gradient: L2 ``diff += decay * data``, L1 ``diff += decay * sign(data)``."""
    local_decay = h.weight_decay * F(parameter.decay_mult)
    if local_decay == 0:
        return
    if h.regularization_type == "L2":
        k.axpy(local_decay, parameter.data, parameter.diff)
    else:
        k.axpy(local_decay, k.sign(parameter.data), parameter.diff)
