"""The scalars of each rule, in float32, as the equations in ``rules.py`` number them.

For parameters with the same hyper-parameters at once: their local rates and decays are arrays.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

import numpy as np

from caffe_pysgd.update.bias_correction import adam_correction, correction
from caffe_pysgd.update.hyperparameters import HyperParameters

F = np.float32
ONE = F(1)
Scalars = Tuple[Any, ...]


def sgd(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    return rate, h.momentum


def nesterov(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    return rate, h.momentum, ONE + h.momentum


def adagrad(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    return rate, h.delta


def rmsprop(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    return rate, h.delta, h.rms_decay, ONE - h.rms_decay


def adadelta(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    return rate, h.delta, h.momentum, ONE - h.momentum


def adam(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    beta1, beta2 = h.momentum, h.momentum2
    corrected = rate * adam_correction(beta1, beta2, iteration + 1)
    return corrected, h.delta, beta1, ONE - beta1, beta2, ONE - beta2


def adamw(h: HyperParameters, rate: np.ndarray, decay: np.ndarray, iteration: int) -> Scalars:
    beta1, beta2, t = h.momentum, h.momentum2, iteration + 1
    corrections = correction(beta1, t), correction(beta2, t)
    return rate, h.delta, beta1, ONE - beta1, beta2, ONE - beta2, *corrections, decay


SCALARS: Dict[str, Callable[[HyperParameters, np.ndarray, np.ndarray, int], Scalars]] = {
    rule.__name__: rule for rule in (sgd, nesterov, adagrad, rmsprop, adadelta, adam, adamw)
}
