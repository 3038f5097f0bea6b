# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""The rules, for one value and for a block of values that is in the cache.

Each is its namesake in ``caffe_pysgd/update/rules``: ``g`` is what the rule sees, ``s`` and ``t``
are its state slots, ``u`` is the update value, ``c`` holds the scalars that ``scalars.py``
computes. A rule without libm's powers works on one value, and all that happens to it is one loop.
One with them works on a block: up to a power in one loop, which marks where libm may round
otherwise; after that is settled, in the next. There ``b`` and ``seen`` give what the rule sees of
the weights ``x`` and the diffs ``d``, and ``v`` is scratch.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

import numpy as np
from numba import njit

from caffe_pysgd.update.kernels.fused.elements import (
    near_midpoint_root,
    near_midpoint_square,
    root,
    scal,
    square,
)
from caffe_pysgd.update.kernels.fused.powers import marks_at, settle_roots, settle_squares

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


def exact_adagrad(axpy: Any, seen: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, b, c, x, d, g, s, t, u, v, work):
        rate, delta = c[0], c[1]
        marks = marks_at(n, work)
        for i in range(n):
            value = seen(b, x[i], d[i])
            g[i], u[i] = value, square(value)
            marks[i] = near_midpoint_square(value, square(value))
        settle_squares(n, g, u, work)
        for i in range(n):
            s[i] = u[i] + s[i]
            u[i] = root(s[i])
            marks[i] = near_midpoint_root(s[i], u[i])
        settle_roots(n, s, u, work)
        for i in range(n):
            u[i] = axpy(rate, g[i] / (u[i] + delta), F(0))

    return update


def exact_rmsprop(axpy: Any, seen: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, b, c, x, d, g, s, t, u, v, work):
        rate, delta, rms_decay, rest = c[0], c[1], c[2], c[3]
        marks = marks_at(n, work)
        for i in range(n):
            value = seen(b, x[i], d[i])
            g[i], u[i] = value, square(value)
            marks[i] = near_midpoint_square(value, square(value))
        settle_squares(n, g, u, work)
        for i in range(n):
            s[i] = axpy(rest, u[i], scal(rms_decay, s[i]))
            u[i] = root(s[i])
            marks[i] = near_midpoint_root(s[i], u[i])
        settle_roots(n, s, u, work)
        for i in range(n):
            u[i] = axpy(rate, g[i] / (u[i] + delta), F(0))

    return update


def exact_adadelta(axpy: Any, seen: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, b, c, x, d, g, s, t, u, v, work):
        rate, delta, momentum, rest = c[0], c[1], c[2], c[3]
        marks = marks_at(n, work)
        for i in range(n):
            value = seen(b, x[i], d[i])
            g[i], u[i] = value, square(value)
            marks[i] = near_midpoint_square(value, square(value))
        settle_squares(n, g, u, work)
        for i in range(n):
            s[i] = axpy(rest, u[i], scal(momentum, s[i]))
            v[i] = (delta + t[i]) / (delta + s[i])
            u[i] = root(v[i])
            marks[i] = near_midpoint_root(v[i], u[i])
        settle_roots(n, v, u, work)
        for i in range(n):
            v[i] = g[i] * u[i]
            u[i] = square(v[i])
            marks[i] = near_midpoint_square(v[i], u[i])
        settle_squares(n, v, u, work)
        for i in range(n):
            t[i] = axpy(rest, u[i], scal(momentum, t[i]))
            u[i] = scal(rate, v[i])

    return update


def exact_adam(axpy: Any, seen: Any) -> Any:
    @njit(**_OPTIONS)
    def update(n, b, c, x, d, g, s, t, u, v, work):
        rate, delta, beta1, rest1, beta2, rest2 = c[0], c[1], c[2], c[3], c[4], c[5]
        marks = marks_at(n, work)
        for i in range(n):
            value = seen(b, x[i], d[i])
            g[i] = value
            s[i] = axpy(rest1, value, scal(beta1, s[i]))
            t[i] = axpy(rest2, value * value, scal(beta2, t[i]))
            u[i] = root(t[i])
            marks[i] = near_midpoint_root(t[i], u[i])
        settle_roots(n, t, u, work)
        for i in range(n):
            u[i] = scal(rate, s[i] / (u[i] + delta))

    return update


BY_VALUE: Dict[str, Callable[[Any], Any]] = {
    rule.__name__: rule for rule in (sgd, nesterov, adagrad, rmsprop, adadelta, adam, adamw)
}
BY_BLOCK: Dict[str, Callable[[Any, Any], Any]] = {
    "adagrad": exact_adagrad,
    "rmsprop": exact_rmsprop,
    "adadelta": exact_adadelta,
    "adam": exact_adam,
}
