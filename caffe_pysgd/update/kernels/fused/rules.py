# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""The rules, for one value and for a block of values that is in the cache.

Each is its namesake in ``caffe_pysgd/update/rules``: ``g`` is what the rule sees, ``s`` and ``t``
are its state slots, ``u`` is the update value, ``c`` holds the scalars that ``scalars.py``
computes. A rule without libm's powers works on one value, and all that happens to it is one loop.
One with them works on a block, step by step, because each power is a loop of its own.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

import numpy as np
from numba import njit

from caffe_pysgd.update.kernels.fused.elements import root, scal, square
from caffe_pysgd.update.kernels.fused.powers import block_root, block_square

F = np.float32
_OPTIONS = {"error_model": "numpy"}


def sgd(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, momentum = c[0], c[1]
        s = axpy(rate, g, scal(momentum, s))
        return s, s, t

    return update


def nesterov(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, momentum, ahead = c[0], c[1], c[2]
        old = s
        s = axpy(rate, g, scal(momentum, old))
        return axpy(ahead, s, scal(-momentum, old)), s, t

    return update


def adagrad(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, delta = c[0], c[1]
        s = square(g) + s
        return axpy(rate, g / (root(s) + delta), F(0)), s, t

    return update


def rmsprop(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, delta, rms_decay, rest = c[0], c[1], c[2], c[3]
        s = axpy(rest, square(g), scal(rms_decay, s))
        return axpy(rate, g / (root(s) + delta), F(0)), s, t

    return update


def adadelta(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, delta, momentum, rest = c[0], c[1], c[2], c[3]
        s = axpy(rest, square(g), scal(momentum, s))
        g = g * root((delta + t) / (delta + s))
        t = axpy(rest, square(g), scal(momentum, t))
        return scal(rate, g), s, t

    return update


def adam(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, delta, beta1, rest1, beta2, rest2 = c[0], c[1], c[2], c[3], c[4], c[5]
        s = axpy(rest1, g, scal(beta1, s))
        t = axpy(rest2, g * g, scal(beta2, t))
        return scal(rate, s / (root(t) + delta)), s, t

    return update


def adamw(axpy: Any) -> Any:
    """Not Caffe's: rounded as NumPy rounds it, whatever the BLAS does."""

    @njit(**_OPTIONS)
    def update(c, g, x, s, t):
        rate, delta, beta1, rest1, beta2, rest2 = c[0], c[1], c[2], c[3], c[4], c[5]
        correction1, correction2, decay = c[6], c[7], c[8]
        s = beta1 * s + rest1 * g
        t = beta2 * t + rest2 * g * g
        mean, deviation = s / correction1, np.sqrt(t / correction2)
        return rate * (mean / (deviation + delta) + decay * x), s, t

    return update


def exact_adagrad(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, c, g, s, t, u, v, work):
        rate, delta = c[0], c[1]
        block_square(n, g, u, work)
        for i in range(n):
            s[i] = u[i] + s[i]
        block_root(n, s, u, work)
        for i in range(n):
            u[i] = axpy(rate, g[i] / (u[i] + delta), F(0))

    return update


def exact_rmsprop(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, c, g, s, t, u, v, work):
        rate, delta, rms_decay, rest = c[0], c[1], c[2], c[3]
        block_square(n, g, u, work)
        for i in range(n):
            s[i] = axpy(rest, u[i], scal(rms_decay, s[i]))
        block_root(n, s, u, work)
        for i in range(n):
            u[i] = axpy(rate, g[i] / (u[i] + delta), F(0))

    return update


def exact_adadelta(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, c, g, s, t, u, v, work):
        rate, delta, momentum, rest = c[0], c[1], c[2], c[3]
        block_square(n, g, u, work)
        for i in range(n):
            s[i] = axpy(rest, u[i], scal(momentum, s[i]))
            u[i] = (delta + t[i]) / (delta + s[i])
        block_root(n, u, v, work)
        for i in range(n):
            g[i] = g[i] * v[i]
        block_square(n, g, u, work)
        for i in range(n):
            t[i] = axpy(rest, u[i], scal(momentum, t[i]))
            u[i] = scal(rate, g[i])

    return update


def exact_adam(axpy: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, c, g, s, t, u, v, work):
        rate, delta, beta1, rest1, beta2, rest2 = c[0], c[1], c[2], c[3], c[4], c[5]
        for i in range(n):
            s[i] = axpy(rest1, g[i], scal(beta1, s[i]))
            t[i] = axpy(rest2, g[i] * g[i], scal(beta2, t[i]))
        block_root(n, t, u, work)
        for i in range(n):
            u[i] = scal(rate, s[i] / (u[i] + delta))

    return update


Rule = Callable[[Any], Any]
BY_VALUE: Dict[str, Rule] = {
    rule.__name__: rule for rule in (sgd, nesterov, adagrad, rmsprop, adadelta, adam, adamw)
}
BY_BLOCK: Dict[str, Rule] = {
    "adagrad": exact_adagrad,
    "rmsprop": exact_rmsprop,
    "adadelta": exact_adadelta,
    "adam": exact_adam,
}
