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


def clip(
    parameters: Sequence[Parameter], h: HyperParameters, rate: np.float32, k: Kernels
) -> Optional[Clipping]:
    """Clip all diffs as ``clip_gradients`` and ``clip_type`` say, if they say so.

    ``norm`` is Caffe's: scale all diffs so that their common L2 norm is at most ``clip_gradients``.
    ``value`` limits every element to ``[-clip_gradients, clip_gradients]``. ``adjustable`` limits
    it to ``[-clip_gradients / rate, clip_gradients / rate]``, so that the update is bounded and not
    the gradient: Kim, Lee, Lee, "Accurate image super-resolution using very deep convolutional
    networks", CVPR 2016 (asked for in BVLC/caffe issue 4671).

    Returns:
        what the norm led to, or None where the gradient was not scaled.
    """
    if h.clip_gradients < 0:
        return None
    if h.clip_type == "norm":
        return _clip_norm(parameters, h.clip_gradients, k)
    limit = h.clip_gradients
    if h.clip_type == "adjustable":
        if rate == 0:
            return None
        limit = limit / rate
    for parameter in parameters:
        np.clip(parameter.diff, -limit, limit, out=parameter.diff)
    return None


def _clip_norm(
    parameters: Sequence[Parameter], clip_gradients: np.float32, k: Kernels
) -> Optional[Clipping]:
    sumsq_diff = F(0)
    for parameter in parameters:
        sumsq_diff += k.dot(parameter.diff, parameter.diff)
    l2norm_diff = np.sqrt(sumsq_diff)
    if not l2norm_diff > clip_gradients:
        return None
    scale_factor = clip_gradients / l2norm_diff
    for parameter in parameters:
        k.scal(scale_factor, parameter.diff)
    return Clipping(l2norm_diff, scale_factor)


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
