"""One weight's update, told as on a board: from its gradient to the weight that was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.proof.explain.arithmetic import Board, Line, fuses, hexadecimal
from caffe_pysgd.proof.explain.derivation import write_rule
from caffe_pysgd.proof.explain.rate_formulas import plateaus_before, rate_of
from caffe_pysgd.update import HyperParameters, UpdateRule
from caffe_pysgd.update.fused import Untraceable
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.policies import schedule_of

F = np.float32

_IN_RULES = ("momentum", "momentum2", "delta", "rms_decay", "trust_coefficient")


@dataclass(frozen=True)
class Element:
    """One weight at one iteration: what was set, and what the update left.

    Attributes:
        parameter: the display name of the parameter that it is in.
        index: its place there.
        element, count: its place among all values of the parameter.
        iteration: which update.
        rule, rule_name: turns the gradient into the update value.
        common: the hyper-parameters of the run.
        h: those of this parameter.
        lr_mult, decay_mult: its multipliers.
        kernels: what the operations are computed with here.
        rate, local_rate: what was recorded of the rate, if anything was.
        clip_factor: by which all gradients were scaled; None for not at all.
        clip_norm: their common norm, if it is known.
        values: what the update left: the stages' values by the names of the board's lines,
            ``weight`` and each slot before it, and ``new`` of each after it.
        norms: the norms that the rule took, in order.
    """

    parameter: str
    index: Tuple[int, ...]
    element: int
    count: int
    iteration: int
    rule: UpdateRule
    rule_name: str
    common: HyperParameters
    h: HyperParameters
    lr_mult: float
    decay_mult: float
    kernels: Kernels
    rate: Optional[float]
    local_rate: Optional[float]
    clip_factor: Optional[float]
    clip_norm: Optional[float]
    values: Mapping[str, np.float32]
    norms: Sequence[np.float32] = ()


@dataclass(frozen=True)
class Explanation:
    """The board, written.

    Attributes:
        title: which weight, which iteration, which rule.
        lines: from the rate to the new weight.
        notes: what is true of all lines.
        source: where the update's own values come from, in a word or two.
    """

    title: str
    lines: List[Line]
    notes: List[str]
    source: str

    @property
    def differing(self) -> List[Line]:
        """The lines whose formula does not give what was recorded."""
        return [line for line in self.lines if line.differs]

    @property
    def verdict(self) -> str:
        """What comes of it, in a line."""
        if self.differing:
            line = self.differing[0]
            return (
                f"explain: the update left {line.name} = {hexadecimal(line.value)}, the formula "
                f"gives {hexadecimal(line.computed)}"
            )
        held = sum(line.recorded and bool(line.formula) for line in self.lines)
        return f"explain: the formulas give all {held} values that the update left, to the bit"

    def as_json(self) -> Dict[str, Any]:
        """Return it as plain values."""
        lines = [
            {
                "name": line.name,
                "formula": line.formula,
                "numbers": line.numbers,
                "note": line.note,
                "value": float(line.value),
                "hex": float(line.value).hex(),
                "recorded": line.recorded,
                "differs": line.differs,
            }
            for line in self.lines
        ]
        told = {"title": self.title, "source": self.source, "notes": self.notes}
        return {**told, "lines": lines, "verdict": self.verdict}


def explain(e: Element, trained_again: bool = False) -> Explanation:
    """Write one weight's update on a board.

    Args:
        e: the weight, and what its update left.
        trained_again: whether that was had by training again.

    Raises:
        UserError: a learning-rate policy of the user's own is not there, or fails.
    """
    recorded = dict(e.values)
    if e.rate is not None:
        recorded["rate"] = F(e.rate)
    if e.local_rate is not None:
        recorded["local_rate"] = F(e.local_rate)
    if e.clip_factor is not None:
        recorded["clip_factor"] = F(e.clip_factor)
    board = Board(recorded, e.kernels, fuses(e.kernels, e.count, e.element), e.iteration + 1)
    _know_settings(board, e)
    board.give("weight", e.values["weight"], "before the update")
    board.give("gradient", e.values["gradient"], _gradient_source(e))
    _write_stages(board, e)
    _write_rate(board, e)
    for slot in e.rule.slots:
        board.give(slot, e.values[slot], "before the update")
    reason = ""
    try:
        write_rule(board, e.rule, e.h, e.iteration, e.norms)
    except Untraceable as untraceable:
        reason = str(untraceable)
        for slot in e.rule.slots:
            board.give(f"new {slot}", e.values[f"new {slot}"], f"by {e.rule_name}")
        board.give("update", e.values["update"], f"by {e.rule_name}")
    board.compute("new weight", "weight", "-", "update")
    place = ", ".join(map(str, e.index))
    title = f"{e.parameter} [{place}] at iteration {e.iteration}: rule {e.rule_name}"
    source = "trained again" if trained_again else "recorded"
    return Explanation(title, board.lines, _notes(board, e, reason, trained_again), source)


def _know_settings(board: Board, e: Element) -> None:
    for name in _IN_RULES:
        board.know(name, getattr(e.h, name))
    board.know("weight_decay", e.h.weight_decay)
    board.know("lr_mult", e.lr_mult)
    board.know("decay_mult", e.decay_mult)
    board.know("clip_gradients", e.common.clip_gradients)
    board.know("iter_size", e.common.iter_size)


def _write_rate(board: Board, e: Element) -> None:
    """The parameter's own rate; the run's is another one only where a group says so."""
    rate = rate_of(e.h, e.iteration, plateaus_before(e.common, e.iteration, e.rate))
    name = "rate" if schedule_of(e.h) == schedule_of(e.common) else "own_rate"
    board.write(name, rate.formula, rate.value, rate.numbers)
    board.compute("local_rate", name, "·", "lr_mult")


def _gradient_source(e: Element) -> str:
    size = e.common.iter_size
    return "from backward" + (f", summed over {size} passes" if size != 1 else "")


def _write_stages(board: Board, e: Element) -> None:
    _write_clipping(board, e)
    if e.common.iter_size == 1:
        board.copy("normalized", "clipped", "iter_size is 1")
    else:
        board.write("part", "1 / {iter_size}", F(1) / F(e.common.iter_size))
        board.compute("normalized", "clipped", "·", "part")
    board.compute("decay", "weight_decay", "·", "decay_mult")
    if e.rule.decoupled_decay:
        board.copy("regularized", "normalized", f"{e.rule_name} decays by itself")
    elif board["decay"] == 0:
        board.copy("regularized", "normalized", "no weight decay")
    elif e.h.regularization_type == "L2":
        board.multiply_add("regularized", "decay", "weight", "normalized")
    else:
        board.write("sign", "sign({weight})", np.sign(board["weight"]))
        board.multiply_add("regularized", "decay", "sign", "normalized")


def _write_clipping(board: Board, e: Element) -> None:
    limit = e.common.clip_gradients
    if limit < 0:
        board.copy("clipped", "gradient", "clip_gradients is not set")
    elif e.common.clip_type == "norm":
        _write_norm_clipping(board, e)
    else:
        board.know("limit", limit)
        if e.common.clip_type == "adjustable":
            plateaus = plateaus_before(e.common, e.iteration, e.rate)
            rate = rate_of(e.common, e.iteration, plateaus).value
            if rate == 0:
                board.copy("clipped", "gradient", "not clipped at a rate of 0")
                return
            board.know("common_rate", rate)
            board.compute("limit", "clip_gradients", "/", "common_rate")
        clipped = np.clip(board["gradient"], -board["limit"], board["limit"])
        board.write("clipped", "min(max({gradient}, -{limit}), {limit})", clipped)


def _write_norm_clipping(board: Board, e: Element) -> None:
    if e.clip_factor is None:
        board.copy("clipped", "gradient", f"their norm is not above {e.common.clip_gradients!s}")
        return
    if e.clip_norm is None:
        board.give("clip_factor", e.clip_factor, "clip_gradients / norm of all gradients")
    else:
        board.give("norm", e.clip_norm, "L2 norm of all gradients")
        board.compute("clip_factor", "clip_gradients", "/", "norm")
    board.compute("clipped", "gradient", "·", "clip_factor")


def _notes(board: Board, e: Element, reason: str, trained_again: bool) -> List[str]:
    notes = [f"Every line is rounded to float32 (kernels {e.kernels.name})."]
    if board.fused_lines:
        notes.append("a · b + c is a fused multiply-add: rounded once.")
    if reason:
        notes.append(f"What {e.rule_name} computes only its own code can tell: {reason}.")
    if trained_again:
        notes.append(
            "No probe recorded this weight; trained again up to here, the run came to all that was "
            "recorded of this iteration."
        )
    return notes
