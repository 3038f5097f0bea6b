"""Rules that Caffe never got, simplest first.

Written in NumPy as their papers write them: there is no native solver whose bits they would have
to match. ``momentum`` is the papers' beta1, ``momentum2`` beta2, ``delta`` epsilon, and ``t``
counts from 1. Each is tested against PyTorch or Optax on the same gradients.
"""

from __future__ import annotations

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.rules.base import ParameterStep, UpdateRule
from caffe_pysgd.update.rules.bias_correction import correction

F = np.float32
ONE = F(1)


class PyTorchSGD(UpdateRule):
    """SGD with momentum as PyTorch (``torch.optim.SGD``) and most papers write it.

    ``history = g + momentum history``, ``update = r history``: the rate is outside of the history,
    so a change of the rate acts on the whole history at once. With a constant rate it is Caffe's
    SGD up to rounding.
    """

    name = "pytorch_sgd"
    slots = ("history",)

    def update(self, p: ParameterStep) -> Floats:
        history = p.state["history"]
        history *= p.h.momentum
        history += p.gradient
        return p.rate * history


class SGDW(UpdateRule):
    """SGD with decoupled weight decay, scaled by the rate as AdamW's is.

    Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 1.
    """

    name = "sgdw"
    slots = ("history",)
    decoupled_decay = True

    def update(self, p: ParameterStep) -> Floats:
        history = p.state["history"]
        history *= p.h.momentum
        history += p.rate * p.gradient
        return history + p.rate * p.decay * p.data


class AdamW(UpdateRule):
    """Adam with decoupled weight decay, scaled by the rate as in ``torch.optim.AdamW``.

    Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """

    name = "adamw"
    slots = ("m", "v")
    decoupled_decay = True

    def update(self, p: ParameterStep) -> Floats:
        m, v = _moments(p)
        return p.rate * (m / (np.sqrt(v) + p.h.delta) + p.decay * p.data)


class AMSGrad(UpdateRule):
    """AMSGrad: Adam whose second moment never falls.

    Reddi, Kale, Kumar, "On the convergence of Adam and beyond", ICLR 2018, with Adam's bias
    correction (``torch.optim.Adam(amsgrad=True)``).
    """

    name = "amsgrad"
    slots = ("m", "v", "v_max")

    def update(self, p: ParameterStep) -> Floats:
        m, _ = _moments(p)
        v_max = p.state["v_max"]
        np.maximum(v_max, p.state["v"], out=v_max)
        corrected = v_max / correction(p.h.momentum2, p.iteration + 1)
        return p.rate * m / (np.sqrt(corrected) + p.h.delta)


class NAdam(UpdateRule):
    """Adam with Nesterov momentum and a constant beta1, as ``optax.nadam``; PyTorch varies beta1.

    Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.
    """

    name = "nadam"
    slots = ("m", "v")

    def update(self, p: ParameterStep) -> Floats:
        beta1, t = p.h.momentum, p.iteration + 1
        _, v = _moments(p)
        ahead = beta1 * p.state["m"] / correction(beta1, t + 1)
        ahead += (ONE - beta1) * p.gradient / correction(beta1, t)
        return p.rate * ahead / (np.sqrt(v) + p.h.delta)


class Adamax(UpdateRule):
    """Adamax: Adam with the infinity norm.

    Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 7.1.
    """

    name = "adamax"
    slots = ("m", "u")

    def update(self, p: ParameterStep) -> Floats:
        m, u, beta1 = p.state["m"], p.state["u"], p.h.momentum
        m *= beta1
        m += (ONE - beta1) * p.gradient
        np.maximum(p.h.momentum2 * u, np.abs(p.gradient) + p.h.delta, out=u)
        return p.rate / correction(beta1, p.iteration + 1) * m / u


class LARS(UpdateRule):
    """Layer-wise adaptive rates.

    You, Gitman, Ginsburg, "Large batch training of convolutional networks", arXiv 1708.03888.
    Each parameter's rate is scaled by ``trust_coefficient |w| / |g + decay w|`` (``optax.lars``;
    the paper divides by ``|g| + decay |w|``, the same without decay). The rate is inside the
    history.
    """

    name = "lars"
    slots = ("history",)
    decoupled_decay = True

    def update(self, p: ParameterStep) -> Floats:
        decayed = p.gradient + p.decay * p.data
        history = p.state["history"]
        history *= p.h.momentum
        history += p.rate * _trust_ratio(p.h.trust_coefficient, p, decayed) * decayed
        return history


class Lamb(UpdateRule):
    """LAMB: AdamW whose step is as long as the parameter's norm.

    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
    2020.
    """

    name = "lamb"
    slots = ("m", "v")
    decoupled_decay = True

    def update(self, p: ParameterStep) -> Floats:
        m, v = _moments(p)
        step = m / (np.sqrt(v) + p.h.delta) + p.decay * p.data
        return p.rate * _trust_ratio(ONE, p, step) * step


class Lion(UpdateRule):
    """Lion: the sign of an interpolated momentum, with decoupled decay.

    Chen et al., "Symbolic discovery of optimization algorithms", arXiv 2302.06675.
    """

    name = "lion"
    slots = ("m",)
    decoupled_decay = True

    def update(self, p: ParameterStep) -> Floats:
        m, beta1, beta2 = p.state["m"], p.h.momentum, p.h.momentum2
        direction = np.sign(beta1 * m + (ONE - beta1) * p.gradient)
        m *= beta2
        m += (ONE - beta2) * p.gradient
        return p.rate * (direction + p.decay * p.data)


def _moments(p: ParameterStep) -> tuple[Floats, Floats]:
    """Update Adam's ``m`` and ``v`` in place; return them corrected for their start at zero."""
    m, v, beta1, beta2 = p.state["m"], p.state["v"], p.h.momentum, p.h.momentum2
    m *= beta1
    m += (ONE - beta1) * p.gradient
    v *= beta2
    v += (ONE - beta2) * p.gradient * p.gradient
    t = p.iteration + 1
    return m / correction(beta1, t), v / correction(beta2, t)


def _trust_ratio(coefficient: np.float32, p: ParameterStep, step: Floats) -> Floats:
    data_norm, step_norm = p.norms(p.data, step)
    either_is_zero = (data_norm == 0) | (step_norm == 0)
    return np.where(either_is_zero, ONE, coefficient * data_norm / step_norm)
