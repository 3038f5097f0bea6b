"""Learning-rate policies that Caffe never got, written as those in ``caffe.py``.

``i`` is the iteration, counted from 0. They are computed in double and rounded once.
"""

from __future__ import annotations

import math
from typing import Dict

import numpy as np

from caffe_pysgd.errors import SettingError
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.policies.caffe import Policy, multistep

F = np.float32


def table(h: HyperParameters, i: int, step: int) -> np.float32:
    """The rate of the last entry of ``lr_table`` at or before i."""
    return F([rate for start, rate in h.lr_table if start <= i][-1])


def cosine(h: HyperParameters, i: int, step: int) -> np.float32:
    """lr_min + (base_lr - lr_min) (1 + cos(pi t / T)) / 2, with warm restarts.

    Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017. The first
    period T is ``stepsize``, each further one ``period_mult`` times as long; without a stepsize
    there is one period, up to ``max_iter``, and no restart.
    """
    if h.stepsize > 0:
        t, period = float(i), float(h.stepsize)
        while t >= period:
            t, period = t - period, period * float(h.period_mult)
    else:
        t, period = float(min(i, h.max_iter)), float(h.max_iter)
    swing = (float(h.base_lr) - float(h.lr_min)) / 2
    return F(float(h.lr_min) + swing * (1 + math.cos(math.pi * t / period)))


def one_cycle(h: HyperParameters, i: int, step: int) -> np.float32:
    """From base_lr / div_factor up to base_lr, then down to almost nothing, along cosines.

    Smith, Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", arXiv 1708.07120, as ``torch.optim.lr_scheduler.OneCycleLR`` has it: the peak is reached
    after ``pct_start`` of ``max_iter``, the end is ``base_lr / div_factor / final_div_factor``.
    """
    peak = float(h.base_lr)
    start = peak / float(h.div_factor)
    end = start / float(h.final_div_factor)
    last = h.max_iter - 1
    turn = float(h.pct_start) * h.max_iter - 1
    if i <= turn:
        return F(_along_cosine(start, peak, i / turn if turn > 0 else 1))
    return F(_along_cosine(peak, end, min(1, (i - turn) / (last - turn))))


def plateau(h: HyperParameters, i: int, step: int) -> np.float32:
    """base_lr * gamma ^ (number of plateaus of the loss), see ``plateau.py``"""
    return multistep(h, i, step)


def _along_cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * part))


POLICIES: Dict[str, Policy] = {
    policy.__name__: policy for policy in (table, cosine, one_cycle, plateau)
}


def warmed_up(h: HyperParameters, i: int, rate: np.float32) -> np.float32:
    """Return the rate scaled linearly from ``warmup_start`` of it up to all of it.

    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv 1706.02677,
    section 2.2; around any policy.
    """
    if i >= h.warmup_iter:
        return rate
    start = float(h.warmup_start)
    return F(float(rate) * (start + (1 - start) * i / h.warmup_iter))


def check(h: HyperParameters) -> None:
    """Refuse what these policies cannot be computed with.

    Raises:
        SettingError: naming the field.
    """
    needs = f"(lr_policy '{h.lr_policy}')"
    if h.lr_policy == "table" and (not h.lr_table or h.lr_table[0][0] > 0):
        raise SettingError("lr_table", h.lr_table, f"an entry for iteration 0 {needs}")
    if h.lr_policy == "cosine" and h.stepsize <= 0 and h.max_iter <= 0:
        raise SettingError("stepsize", h.stepsize, f"more than 0, or a max_iter {needs}")
    if h.lr_policy == "cosine" and not h.period_mult >= 1:
        raise SettingError("period_mult", h.period_mult, "1 or more")
    if h.lr_policy == "one_cycle" and h.max_iter < 2:
        raise SettingError("max_iter", h.max_iter, f"2 or more {needs}")
    if h.lr_policy == "one_cycle" and not 0 < h.pct_start < 1:
        raise SettingError("pct_start", h.pct_start, "more than 0 and less than 1")
    for name in ("div_factor", "final_div_factor"):
        if h.lr_policy == "one_cycle" and not getattr(h, name) > 0:
            raise SettingError(name, getattr(h, name), "more than 0")
    if h.warmup_iter < 0:
        raise SettingError("warmup_iter", h.warmup_iter, "0 or more")
