"""The six update rules of Caffe, simplest first.

Each is its solver's ``ComputeUpdateValue`` (``src/caffe/solvers/*_solver.cpp``), written with the
same vector operations in the same order: the order is what makes the bits. ``g`` is the gradient,
``r`` the local rate; the comments give each line as an equation. Unlike PyTorch's and most papers'
SGD, Caffe's has the rate inside the history: a change of the rate reaches the update only as fast
as the momentum lets it (``pytorch_sgd`` has it outside).
"""

from __future__ import annotations

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import SettingError
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.rules.base import ParameterStep, UpdateRule
from caffe_pysgd.update.rules.bias_correction import adam_correction

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)


class SGD(UpdateRule):
    """Stochastic gradient descent with momentum (Caffe's ``sgd_solver.cpp``)."""

    name = "sgd"
    slots = ("history",)

    def update(self, p: ParameterStep) -> Floats:
        g, history, k = p.gradient, p.state["history"], p.kernels
        k.axpby(p.rate, g, p.h.momentum, history)  # history = r g + momentum history
        return history


class Nesterov(UpdateRule):
    """Nesterov's accelerated gradient (Caffe's ``nesterov_solver.cpp``).

    In the form of Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013.
    """

    name = "nesterov"
    slots = ("history",)

    def update(self, p: ParameterStep) -> Floats:
        g, history, momentum, k = p.gradient, p.state["history"], p.h.momentum, p.kernels
        u = k.scratch(g)
        k.copy(history, u)
        k.axpby(p.rate, g, momentum, history)  # history = r g + momentum history
        # Step back by the old history, then over by the new one:
        k.axpby(ONE + momentum, history, -momentum, u)  # u = (1 + momentum) history - momentum u
        return u


class AdaGrad(UpdateRule):
    """AdaGrad (Caffe's ``adagrad_solver.cpp``).

    Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 2011.
    """

    name = "adagrad"
    slots = ("history",)
    squares = ("history",)

    def update(self, p: ParameterStep) -> Floats:
        g, history, k = p.gradient, p.state["history"], p.kernels
        u = k.scratch(g)
        k.powx(g, TWO, u)
        k.add(u, history, history)  # history = history + g^2
        k.powx(history, HALF, u)
        k.add_scalar(p.h.delta, u)
        k.div(g, u, u)  # u = g / (sqrt(history) + delta)
        k.axpby(p.rate, u, ZERO, g)  # r u
        return g

    @classmethod
    def check(cls, h: HyperParameters) -> None:
        _refuse_momentum("AdaGrad", h)


class RMSProp(UpdateRule):
    """Tieleman, Hinton, "Lecture 6.5: RMSProp", Coursera, 2012 (Caffe's ``rmsprop_solver.cpp``)."""

    name = "rmsprop"
    slots = ("history",)
    squares = ("history",)

    def update(self, p: ParameterStep) -> Floats:
        g, history, decay, k = p.gradient, p.state["history"], p.h.rms_decay, p.kernels
        u = k.scratch(g)
        k.powx(g, TWO, u)
        k.axpby(ONE - decay, u, decay, history)  # history = (1 - decay) g^2 + decay history
        k.powx(history, HALF, u)
        k.add_scalar(p.h.delta, u)
        k.div(g, u, u)  # u = g / (sqrt(history) + delta)
        k.axpby(p.rate, u, ZERO, g)  # r u
        return g

    @classmethod
    def check(cls, h: HyperParameters) -> None:
        if not 0 <= h.rms_decay < 1:
            raise SettingError("rms_decay", h.rms_decay, "0 or more and less than 1 (RMSProp)")
        _refuse_momentum("RMSProp", h)


class AdaDelta(UpdateRule):
    """AdaDelta (Caffe's ``adadelta_solver.cpp``).

    Zeiler, "ADADELTA: an adaptive learning rate method", arXiv 1212.5701.
    """

    name = "adadelta"
    slots = ("history", "update_history")
    squares = ("history", "update_history")

    def update(self, p: ParameterStep) -> Floats:
        g, k, delta, momentum = p.gradient, p.kernels, p.h.delta, p.h.momentum
        history, updates = p.state["history"], p.state["update_history"]
        u, v = k.scratch(g, 0), k.scratch(g, 1)
        k.powx(g, TWO, u)
        k.axpby(ONE - momentum, u, momentum, history)  # history = mean square of g
        v.fill(delta)
        k.add(v, updates, u)
        k.add(v, history, v)
        k.div(u, v, u)
        k.powx(u, HALF, u)
        k.mul(g, u, g)  # g = g sqrt((delta + updates) / (delta + history))
        k.powx(g, TWO, u)
        k.axpby(ONE - momentum, u, momentum, updates)  # updates = mean square of that
        k.scale(p.rate, g, g)  # r g
        return g


class Adam(UpdateRule):
    """Adam (Caffe's ``adam_solver.cpp``).

    Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, in the form at the end of
    its section 2: ``delta`` is the paper's epsilon hat.
    """

    name = "adam"
    slots = ("m", "v")
    squares = ("v",)

    def update(self, p: ParameterStep) -> Floats:
        g, k, m, v = p.gradient, p.kernels, p.state["m"], p.state["v"]
        beta1, beta2, t = p.h.momentum, p.h.momentum2, p.iteration + 1
        u = k.scratch(g)
        k.axpby(ONE - beta1, g, beta1, m)  # m = (1 - beta1) g + beta1 m
        k.mul(g, g, u)
        k.axpby(ONE - beta2, u, beta2, v)  # v = (1 - beta2) g^2 + beta2 v
        k.powx(v, HALF, u)
        k.add_scalar(p.h.delta, u)
        k.div(m, u, u)  # u = m / (sqrt(v) + delta)
        correction = adam_correction(beta1, beta2, t)
        k.scale(p.rate * correction, u, g)  # r correction u
        return g


def _refuse_momentum(solver: str, h: HyperParameters) -> None:
    if h.momentum != 0:
        raise SettingError("momentum", h.momentum, f"0 ({solver} cannot be used with momentum)")
