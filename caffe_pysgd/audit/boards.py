"""Each rule's arithmetic on a board: the operations of its ``update``, one after the other.

To be read beside ``update/rules/native.py`` and ``update/rules/beyond.py``: the same order, for a
single weight. ``regularized`` is the gradient that the rule gets, a slot's name is its value before
the update, and ``new`` before that name is its value after it. What depends on the whole parameter,
the two norms of LARS and LAMB, the board knows already.
"""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np

from caffe_pysgd.audit.arithmetic import Board
from caffe_pysgd.update.bias_correction import adam_correction, correction

F = np.float32


def _sgd(b: Board) -> None:
    b.compute("kept", "momentum", "·", "history")
    b.multiply_add("new history", "local_rate", "regularized", "kept")
    b.copy("update", "new history")


def _nesterov(b: Board) -> None:
    b.compute("kept", "momentum", "·", "history")
    b.multiply_add("new history", "local_rate", "regularized", "kept")
    b.write("over", "1 + {momentum}", F(1) + b["momentum"])
    b.write("back", "-{momentum} · {history}", -b["momentum"] * b["history"])
    b.multiply_add("update", "over", "new history", "back")


def _adagrad(b: Board) -> None:
    b.power("square", "regularized", 2)
    b.compute("new history", "square", "+", "history")
    _divide_by_root(b, "new history")


def _rmsprop(b: Board) -> None:
    b.power("square", "regularized", 2)
    b.write("share", "1 - {rms_decay}", F(1) - b["rms_decay"])
    b.compute("kept", "rms_decay", "·", "history")
    b.multiply_add("new history", "share", "square", "kept")
    _divide_by_root(b, "new history")


def _divide_by_root(b: Board, history: str) -> None:
    b.power("root", history, 0.5)
    b.compute("divisor", "root", "+", "delta")
    b.compute("direction", "regularized", "/", "divisor")
    b.compute("update", "local_rate", "·", "direction")


def _adadelta(b: Board) -> None:
    b.power("square", "regularized", 2)
    b.write("share", "1 - {momentum}", F(1) - b["momentum"])
    b.compute("kept", "momentum", "·", "history")
    b.multiply_add("new history", "share", "square", "kept")
    b.compute("above", "delta", "+", "update_history")
    b.compute("below", "delta", "+", "new history")
    b.compute("ratio", "above", "/", "below")
    b.power("root", "ratio", 0.5)
    b.compute("step", "regularized", "·", "root")
    b.power("step_square", "step", 2)
    b.compute("kept_updates", "momentum", "·", "update_history")
    b.multiply_add("new update_history", "share", "step_square", "kept_updates")
    b.compute("update", "local_rate", "·", "step")


def _adam(b: Board) -> None:
    b.write("share", "1 - {momentum}", F(1) - b["momentum"])
    b.compute("kept_m", "momentum", "·", "m")
    b.multiply_add("new m", "share", "regularized", "kept_m")
    b.compute("square", "regularized", "·", "regularized")
    b.write("share_2", "1 - {momentum2}", F(1) - b["momentum2"])
    b.compute("kept_v", "momentum2", "·", "v")
    b.multiply_add("new v", "share_2", "square", "kept_v")
    b.power("root", "new v", 0.5)
    b.compute("divisor", "root", "+", "delta")
    b.compute("direction", "new m", "/", "divisor")
    both = adam_correction(b["momentum"], b["momentum2"], b.t)
    b.write("correction", "sqrt(1 - {momentum2}^{t}) / (1 - {momentum}^{t})", both)
    b.compute("corrected_rate", "local_rate", "·", "correction")
    b.compute("update", "corrected_rate", "·", "direction")


def _pytorch_sgd(b: Board) -> None:
    b.compute("kept", "momentum", "·", "history")
    b.compute("new history", "kept", "+", "regularized")
    b.compute("update", "local_rate", "·", "new history")


def _sgdw(b: Board) -> None:
    b.compute("kept", "momentum", "·", "history")
    b.compute("step", "local_rate", "·", "regularized")
    b.compute("new history", "kept", "+", "step")
    b.compute("decay_rate", "local_rate", "·", "decay")
    b.compute("decayed", "decay_rate", "·", "weight")
    b.compute("update", "new history", "+", "decayed")


def _adamw(b: Board) -> None:
    _moments(b)
    _direction(b)
    b.compute("update", "local_rate", "·", "step")


def _amsgrad(b: Board) -> None:
    _moments(b)
    b.write("new v_max", "max({v_max}, {new v})", np.maximum(b["v_max"], b["new v"]))
    b.compute("corrected_max", "new v_max", "/", "correction_v")
    b.root("root", "corrected_max")
    b.compute("divisor", "root", "+", "delta")
    b.compute("scaled_m", "local_rate", "·", "corrected_m")
    b.compute("update", "scaled_m", "/", "divisor")


def _nadam(b: Board) -> None:
    _moments(b)
    b.compute("next_m", "momentum", "·", "new m")
    _correct(b, "correction_next", "momentum", b.t + 1)
    b.compute("ahead_m", "next_m", "/", "correction_next")
    b.compute("ahead_g", "new_part", "/", "correction_m")
    b.compute("ahead", "ahead_m", "+", "ahead_g")
    b.root("root", "corrected_v")
    b.compute("divisor", "root", "+", "delta")
    b.compute("scaled", "local_rate", "·", "ahead")
    b.compute("update", "scaled", "/", "divisor")


def _adamax(b: Board) -> None:
    _first_moment(b)
    b.compute("kept_u", "momentum2", "·", "u")
    b.write("size", "abs({regularized}) + {delta}", np.abs(b["regularized"]) + b["delta"])
    b.write("new u", "max({kept_u}, {size})", np.maximum(b["kept_u"], b["size"]))
    _correct(b, "correction", "momentum", b.t)
    b.compute("corrected_rate", "local_rate", "/", "correction")
    b.compute("scaled_m", "corrected_rate", "·", "new m")
    b.compute("update", "scaled_m", "/", "new u")


def _lars(b: Board) -> None:
    b.compute("decay_part", "decay", "·", "weight")
    b.compute("decayed", "regularized", "+", "decay_part")
    b.compute("kept", "momentum", "·", "history")
    _trusted(b, "trust_coefficient")
    b.compute("step", "trusted_rate", "·", "decayed")
    b.compute("new history", "kept", "+", "step")
    b.copy("update", "new history")


def _lamb(b: Board) -> None:
    _moments(b)
    _direction(b)
    _trusted(b, "")
    b.compute("update", "trusted_rate", "·", "step")


def _lion(b: Board) -> None:
    b.compute("old_part", "momentum", "·", "m")
    b.write("share", "1 - {momentum}", F(1) - b["momentum"])
    b.compute("new_part", "share", "·", "regularized")
    b.compute("mixed", "old_part", "+", "new_part")
    b.write("direction", "sign({mixed})", np.sign(b["mixed"]))
    b.compute("kept_m", "momentum2", "·", "m")
    b.write("share_2", "1 - {momentum2}", F(1) - b["momentum2"])
    b.compute("added_m", "share_2", "·", "regularized")
    b.compute("new m", "kept_m", "+", "added_m")
    b.compute("decay_part", "decay", "·", "weight")
    b.compute("step", "direction", "+", "decay_part")
    b.compute("update", "local_rate", "·", "step")


def _first_moment(b: Board) -> None:
    b.compute("kept_m", "momentum", "·", "m")
    b.write("share", "1 - {momentum}", F(1) - b["momentum"])
    b.compute("new_part", "share", "·", "regularized")
    b.compute("new m", "kept_m", "+", "new_part")


def _moments(b: Board) -> None:
    """The moments of the rules beyond Caffe, corrected for their start at zero."""
    _first_moment(b)
    b.compute("kept_v", "momentum2", "·", "v")
    b.write("share_2", "1 - {momentum2}", F(1) - b["momentum2"])
    b.compute("scaled_g", "share_2", "·", "regularized")
    b.compute("new_square", "scaled_g", "·", "regularized")
    b.compute("new v", "kept_v", "+", "new_square")
    _correct(b, "correction_m", "momentum", b.t)
    _correct(b, "correction_v", "momentum2", b.t)
    b.compute("corrected_m", "new m", "/", "correction_m")
    b.compute("corrected_v", "new v", "/", "correction_v")


def _direction(b: Board) -> None:
    """Adam's direction with the decoupled decay added, before the rate."""
    b.root("root", "corrected_v")
    b.compute("divisor", "root", "+", "delta")
    b.compute("direction", "corrected_m", "/", "divisor")
    b.compute("decay_part", "decay", "·", "weight")
    b.compute("step", "direction", "+", "decay_part")


def _correct(b: Board, name: str, beta: str, t: int) -> None:
    b.write(name, f"1 - {{{beta}}}^{t}", correction(b[beta], t))


def _trusted(b: Board, coefficient: str) -> None:
    """The rate times the trust ratio of LARS and LAMB; the norms are those of the parameter."""
    b.give("weight_norm", b["weight_norm"], "L2 norm of all weights of the parameter")
    b.give("step_norm", b["step_norm"], "L2 norm of all their steps")
    if b["weight_norm"] == 0 or b["step_norm"] == 0:
        b.know("one", 1)
        b.copy("trust_ratio", "one", "one of the norms is 0")
    else:
        if coefficient:
            b.compute("weighted_norm", coefficient, "·", "weight_norm")
        b.compute(
            "trust_ratio", "weighted_norm" if coefficient else "weight_norm", "/", "step_norm"
        )
    b.compute("trusted_rate", "local_rate", "·", "trust_ratio")


BOARDS: Dict[str, Callable[[Board], None]] = {
    board.__name__[1:]: board
    for board in (
        _sgd, _nesterov, _adagrad, _rmsprop, _adadelta, _adam,
        _pytorch_sgd, _sgdw, _adamw, _amsgrad, _nadam, _adamax, _lars, _lamb, _lion,
    )
}  # fmt: skip
