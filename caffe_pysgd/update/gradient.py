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


def clipping(parameters: Sequence[Parameter], h: HyperParameters, k: Kernels) -> Optional[Clipping]:
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


def normalize(parameter: Parameter, h: HyperParameters, k: Kernels) -> None:
    """Divide the diff, summed over ``iter_size`` passes, by their number."""
    if h.iter_size != 1:
        k.scal(F(1) / F(h.iter_size), parameter.diff)


def local_decay(parameter: Parameter, h: HyperParameters) -> np.float32:
    """Return the weight decay of one parameter."""
    return h.weight_decay * F(parameter.decay_mult)


def regularize(parameter: Parameter, h: HyperParameters, decay: np.float32, k: Kernels) -> None:
    """Add the gradient of the weight decay, of strength ``decay``, to the diff.

    L2: ``diff += decay data``; L1: ``diff += decay sign(data)``.
    """
    if decay == 0:
        return
    if h.regularization_type == "L2":
        k.axpy(decay, parameter.data, parameter.diff)
    else:
        sign = k.scratch(parameter.data)
        k.sign(parameter.data, sign)
        k.axpy(decay, sign, parameter.diff)
