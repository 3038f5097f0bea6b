"""One pass over memory: from the gradient to the new weights, block by block.

What ``Updater`` composes of vector operations happens here to a block of 1,024 values while they
are in the cache: clip, normalize, regularize, rule, apply; and, where figures are wanted, their
sums and extremes.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types

from caffe_pysgd.update.kernels.fused import layout
from caffe_pysgd.update.kernels.fused.elements import (
    axpy_fused,
    axpy_unfused,
    bits_of,
    opaque,
    pointer_to,
    scal,
)
from caffe_pysgd.update.kernels.fused.figures import copy, finish, measure, reset
from caffe_pysgd.update.kernels.fused.rules import BY_BLOCK, BY_VALUE

F = np.float32
_OPTIONS = {"error_model": "numpy"}
_floats_at = pointer_to(types.float32)
_integers_at = pointer_to(types.int64)

# The addresses of: the table of addresses, of scalars, of chunks; first and last chunk; scratch;
# powf; figures, or 0 for none. And what to leave in the diffs.
SIGNATURE = types.void(*[types.int64] * 9)

_B = layout.BLOCK
_ADDRESSES, _SCALARS = layout.ADDRESSES, layout.SCALARS
_CLIP, _NORMALIZATION, _DECAY = layout.CLIP, layout.NORMALIZATION, layout.DECAY
_NOTHING, _RULE = layout.NOTHING, layout.RULE
_DATA, _DIFF, _SLOTS = layout.DATA, layout.DIFF, layout.SLOTS
_GRADIENT, _REGULARIZED, _UPDATE = layout.GRADIENT, layout.REGULARIZED, layout.UPDATE
_NEW_DATA, _FIRST_SLOT = layout.NEW_DATA, layout.FIRST_SLOT
_QUANTITIES, _FIGURES = layout.QUANTITIES, layout.FIGURES
_SCRATCH_G, _SCRATCH_U, _SCRATCH_V = layout.SCRATCH_G, layout.SCRATCH_U, layout.SCRATCH_V
_MARKS, _LISTED = layout.MARKS, layout.LISTED
_LANES_AT, _LANES_BYTES = layout.LANES_AT, layout.LANES_BYTES
_UPDATE_VALUE, _ZEROS = layout.LEAVES_UPDATE, layout.LEAVES_ZEROS


# Scalars as tuples: of an array, LLVM would fear that results overwrite it, and not vectorise.


@njit(**_OPTIONS)
def _before_the_rule(c):
    return (c[_CLIP], c[_NORMALIZATION], c[_DECAY])


@njit(**_OPTIONS)
def _nothing(c):
    return bits_of(c[_NOTHING])


@njit(**_OPTIONS)
def _of_the_rule(c):
    r = c[_RULE:]
    return (r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8])


def make_pass(rule: str, slots: int, l1: bool, rounds_once: bool, exact: bool) -> Any:
    """Return the pass of a rule with that many state slots, to be compiled for ``SIGNATURE``.

    Args:
        l1: whether weights decay by their signs.
        rounds_once: whether axpy is a fused multiply-add.
        exact: libm's powers, not the correctly rounded ones.
    """
    axpy = axpy_fused if rounds_once else axpy_unfused
    by_value = BY_VALUE[rule](axpy)
    same = rule == "sgd"  # its update value is its history
    whole = not exact or rule not in BY_BLOCK  # whether one loop can do all

    @njit(**_OPTIONS)
    def seen(k, x, d):
        """What the rule sees: the gradient clipped, normalized and regularized."""
        g = k[_NORMALIZATION] * scal(k[_CLIP], d)
        if l1:
            return axpy(k[_DECAY], F(x > 0) - F(x < 0), g)
        return axpy(k[_DECAY], x, g)

    if whole:

        @njit(**_OPTIONS)
        def see_and_update(n, c, x, d, g, s, t, u, v, work):
            before, k = _before_the_rule(c), _of_the_rule(c)
            for i in range(n):
                g[i] = seen(before, x[i], d[i])
                if slots > 1:
                    u[i], s[i], t[i] = by_value(k, g[i], x[i], s[i], t[i])
                else:
                    u[i], s[i], _ = by_value(k, g[i], x[i], s[i], F(0))

    else:
        by_block = BY_BLOCK[rule](axpy, seen)

        @njit(**_OPTIONS)
        def see_and_update(n, c, x, d, g, s, t, u, v, work):
            by_block(n, _before_the_rule(c), _of_the_rule(c), x, d, g, s, t, u, v, work)

    @njit(**_OPTIONS)
    def apply(n, x, d, u, leaves):
        for i in range(n):
            x[i] = x[i] - u[i]
        if leaves == _UPDATE_VALUE:
            for i in range(n):
                d[i] = u[i]
        elif leaves == _ZEROS:
            for i in range(n):
                d[i] = 0

    def make_loop(leaves):
        """Return the loop that does all, for one kind of what is left in the diffs."""

        @njit(**_OPTIONS)
        def loop(n, c, x, d, s, t):
            before, k, nothing = _before_the_rule(c), _of_the_rule(c), _nothing(c)
            for i in range(n):
                g = seen(before, x[i], d[i])
                if slots > 1:
                    u, s[i], t[i] = by_value(k, g, x[i], s[i], t[i])
                else:
                    u, s[i], _ = by_value(k, g, x[i], s[i], F(0))
                x[i] = x[i] - opaque(u, nothing)
                if leaves == _UPDATE_VALUE:
                    d[i] = u
                elif leaves == _ZEROS:
                    d[i] = F(0)

        return loop

    leaving_the_update, leaving_zeros = make_loop(_UPDATE_VALUE), make_loop(_ZEROS)
    leaving_anything = make_loop(layout.LEAVES_ANYTHING)

    @njit(**_OPTIONS)
    def all_at_once(n, c, x, d, s, t, leaves):
        if leaves == _UPDATE_VALUE:
            leaving_the_update(n, c, x, d, s, t)
        elif leaves == _ZEROS:
            leaving_zeros(n, c, x, d, s, t)
        else:
            leaving_anything(n, c, x, d, s, t)

    def run(addresses, scalars, chunks, first, last, scratch, powf, figures, leaves):
        work = (powf, scratch + _MARKS, scratch + _LISTED)
        g_at, u_at = scratch + _SCRATCH_G, scratch + _SCRATCH_U
        lanes = scratch + _LANES_AT
        g, u = carray(_floats_at(g_at), (_B,)), carray(_floats_at(u_at), (_B,))
        v = carray(_floats_at(scratch + _SCRATCH_V), (_B,))
        for number in range(first, last):
            chunk = carray(_integers_at(chunks + 24 * number), (3,))
            at = carray(_integers_at(addresses + 8 * _ADDRESSES * chunk[0]), (_ADDRESSES,))
            scalars_at = scalars + 4 * _SCALARS * chunk[0]
            c = carray(_floats_at(scalars_at), (_SCALARS,))
            if figures != 0:
                for quantity in range(_FIRST_SLOT + slots):
                    reset(lanes + _LANES_BYTES * quantity)
            for start in range(chunk[1], chunk[1] + chunk[2], _B):
                n = min(_B, chunk[1] + chunk[2] - start)
                x_at, d_at = at[_DATA] + 4 * start, at[_DIFF] + 4 * start
                s_at, t_at = at[_SLOTS] + 4 * start, at[_SLOTS + 1] + 4 * start
                x, d = carray(_floats_at(x_at), (n,)), carray(_floats_at(d_at), (n,))
                s, t = carray(_floats_at(s_at), (n,)), carray(_floats_at(t_at), (n,))
                if whole and figures == 0:
                    all_at_once(n, c, x, d, s, t, leaves)
                    continue
                see_and_update(n, c, x, d, g, s, t, u, v, work)
                if figures != 0:
                    measure(n, d, d_at, lanes + _LANES_BYTES * _GRADIENT)
                    measure(n, g, g_at, lanes + _LANES_BYTES * _REGULARIZED)
                apply(n, x, d, u, leaves)
                if figures != 0:
                    if not same:
                        measure(n, u, u_at, lanes + _LANES_BYTES * _UPDATE)
                    measure(n, x, x_at, lanes + _LANES_BYTES * _NEW_DATA)
                    measure(n, s, s_at, lanes + _LANES_BYTES * _FIRST_SLOT)
                    if slots > 1:
                        measure(n, t, t_at, lanes + _LANES_BYTES * (_FIRST_SLOT + 1))
            if figures != 0:
                if same:
                    copy(lanes + _LANES_BYTES * _FIRST_SLOT, lanes + _LANES_BYTES * _UPDATE)
                for quantity in range(_FIRST_SLOT + slots):
                    row = figures + 8 * _FIGURES * (_QUANTITIES * number + quantity)
                    finish(lanes + _LANES_BYTES * quantity, row)

    return run
