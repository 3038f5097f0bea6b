"""A rule's arithmetic on a board, found by running its own ``update`` on symbols.

The fused kernels are made in the same way (``update/fused/program.py``). Here scalars are
symbols, too, and a value is called by the name that the rule's source gives it, if there is one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.proof.explain.arithmetic import Board, decimal
from caffe_pysgd.update import HyperParameters, UpdateRule
from caffe_pysgd.update.fused import program
from caffe_pysgd.update.fused.program import (
    Operation,
    PerParameter,
    Program,
    Symbol,
    Untraceable,
    trace,
)

F = np.float32

# What is called in these has names of its own.
_NOT_A_RULES = (__file__, program.__file__, str(Path(np.__file__).parent))

_SIGNS = {"add": "+", "subtract": "-", "multiply": "·", "divide": "/"}
_CALLED = {
    "add": "sum", "subtract": "difference", "multiply": "product", "divide": "quotient",
    "scal": "product", "axpy": "sum", "multiply_add": "sum", "negative": "opposite",
    "square": "square", "powx_2": "square", "sqrt": "root", "powx_half": "root",
    "absolute": "size", "sign": "sign", "caffe_sign": "sign", "maximum": "greater",
    "minimum": "smaller", "where": "choice",
}  # fmt: skip


def write_rule(
    board: Board,
    rule: UpdateRule,
    h: HyperParameters,
    iteration: int,
    norms: Sequence[np.float32],
) -> None:
    """Write what a rule does to one weight.

    The board knows ``regularized``, ``weight``, the slots, ``local_rate``, ``decay``, and the
    hyper-parameters by their names.

    Args:
        norms: those that the rule takes, in order.

    Raises:
        Untraceable: what the rule does cannot be told.
    """
    _Writer(board, rule, _Run(rule, _Scalars(board), h, iteration, norms)).write()


def takes_norms(rule: UpdateRule, h: HyperParameters, iteration: int) -> bool:
    """Return whether a rule takes norms, which a probe of one weight does not see.

    Of a rule that cannot be explained anyhow, it does not matter.
    """
    one = np.ones(1, F)
    try:
        return len(trace(rule, h, one, one, iteration).programs) > 1
    except Untraceable:
        return False


class Named(PerParameter):
    """A scalar that knows how it came about.

    Attributes:
        step: what made it; None for a plain number.
    """

    step: Optional[_Step] = None
    scalars: Optional[_Scalars] = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        if any(isinstance(operand, Symbol) for operand in inputs):
            return NotImplemented
        plain = [np.asarray(i).ravel()[0] if isinstance(i, np.ndarray) else i for i in inputs]
        more.pop("out", None)  # to a scalar, ``*=`` gives another one
        value = getattr(ufunc, method)(*plain, **more)
        assert self.scalars is not None
        name = program.NAMES.get(ufunc.__name__, "")
        call = f"{ufunc.__name__}({', '.join(f'{{{i}}}' for i in range(len(inputs)))})"
        return self.scalars.made(name, inputs, value, "" if name else call)

    def __array_function__(self, function: Any, types: Any, args: Any, more: Any) -> Any:
        if function is np.where:
            condition, one, other = args
            return one if condition else other
        return super().__array_function__(function, types, args, more)

    def __pow__(self, exponent: Any) -> Named:
        return self.derived(f"{{0}}^{exponent:g}", np.asarray(self)[0] ** exponent)

    def __bool__(self) -> bool:
        return bool(np.asarray(self)[0])

    def rounded(self) -> Named:
        return self  # what it is stands in its line

    def derived(self, formula: str, value: Any, *others: Named) -> Named:
        """Return a scalar that a formula of this one, ``{0}``, and of others gives."""
        assert self.scalars is not None
        return self.scalars.made("", [self, *others], value, formula)


class _Step(NamedTuple):
    """How a scalar was made: its name is known beforehand, or it has a line of its own.

    A norm has no name yet; its number says which it is.
    """

    name: str
    operation: str
    operands: Tuple[Any, ...]
    value: np.float32
    formula: str = ""
    norm: Optional[int] = None


class _Scalars:
    """The scalars of one run of a rule."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.all: List[Named] = []  # so that each keeps its identity to itself

    def named(self, name: str, value: Any) -> Named:
        return self._new(_Step(name, "", (), F(value)))

    def norm(self, number: int, value: Any) -> Named:
        return self._new(_Step("", "", (), F(value), norm=number))

    def made(self, operation: str, operands: Sequence[Any], value: Any, formula: str = "") -> Named:
        return self._new(_Step("", operation, tuple(operands), np.ravel(value)[0], formula))

    def _new(self, step: _Step) -> Named:
        scalar: Named = np.array([step.value]).view(Named)
        scalar.step, scalar.scalars = step, self
        self.all.append(scalar)
        return scalar


class _Settings:
    """Hyper-parameters whose float32s are named scalars; one called as a slot is ``h.name``."""

    def __init__(self, h: HyperParameters, scalars: _Scalars, slots: Sequence[str]) -> None:
        self._h, self._scalars, self._slots = h, scalars, slots

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._h, name)
        called = f"h.{name}" if name in self._slots else name
        return self._scalars.named(called, value) if isinstance(value, np.floating) else value


class _Run:
    """A rule run on symbols, and what its source calls them.

    Attributes:
        program: what it does.
        scalars: the program's.
        norms_of: the values whose norms it takes.
    """

    def __init__(
        self,
        rule: UpdateRule,
        scalars: _Scalars,
        h: HyperParameters,
        iteration: int,
        norms: Sequence[np.float32],
    ) -> None:
        board = scalars.board
        self.locals: List[Dict[str, Any]] = []
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            traced = trace(
                rule,
                _Settings(h, scalars, rule.slots),  # type: ignore[arg-type]
                scalars.named("local_rate", board["local_rate"]),
                scalars.named("decay", board["decay"]),
                iteration,
                [scalars.norm(number, value) for number, value in enumerate(norms)],
            )
        finally:
            sys.setprofile(before)
        self.norms_of = [value for program in traced.programs for value in program.norms]
        if len(self.norms_of) > len(norms):
            raise Untraceable("it takes a norm that nobody saw")
        self.program: Program = traced.programs[-1]
        self.scalars = traced.scalars

    def _note(self, frame: Any, event: str, argument: Any) -> None:
        if event != "return" or frame.f_code.co_filename.startswith(_NOT_A_RULES):
            return
        found = {
            name: (value, value.value if isinstance(value, Symbol) else "")
            for name, value in frame.f_locals.items()
            if isinstance(value, (Symbol, Named)) and name not in ("self", "_")
        }
        self.locals.append(found)


class _Writer:
    """Writes what a rule does as lines, one after the other."""

    def __init__(self, board: Board, rule: UpdateRule, run: _Run) -> None:
        self._board, self._slots, self._run = board, rule.slots, run
        self._names = {"g": "regularized", "w": "weight"}
        self._names.update((f"s{k}", slot) for k, slot in enumerate(rule.slots))
        self._reserved = {"update", "new weight", *(f"new {slot}" for slot in rule.slots)}
        self._scalars: Dict[Tuple[str, ...], str] = {}
        self._called_scalars: Dict[int, str] = {}  # what the source calls them, by their identity
        self._called: Dict[str, str] = {}  # and what it calls values
        for found in run.locals:
            for name, (thing, value) in found.items():
                if isinstance(thing, Named):
                    self._called_scalars.setdefault(id(thing), name)
                elif value[0] == "v":
                    self._called.setdefault(value, name)

    def write(self) -> None:
        """Write all lines."""
        program, names = self._run.program, self._names
        final = {program.update: "update"}
        for slot, value in zip(self._slots, program.state):
            if value[0] == "v":
                final[value] = f"new {slot}"
        for number, operation in enumerate(program.operations):
            value = f"v{number}"
            operands = [self._operand(o) for o in operation.operands]
            names[value] = final.get(value) or self._board.free(
                self._called.get(value) or _CALLED.get(operation.name, "value"), self._reserved
            )
            _write(self._board, names[value], operation, operands)
        for slot, value in zip(self._slots, program.state):
            if self._operand(value) != f"new {slot}":
                self._board.copy(f"new {slot}", self._operand(value))
        if self._operand(program.update) != "update":
            self._board.copy("update", self._operand(program.update))

    def _operand(self, operand: str) -> str:
        if operand[0] != "c":
            return self._names[operand]
        return self._scalar(self._run.scalars[int(operand[1:])])

    def _scalar(self, scalar: Any) -> str:
        """Return a scalar's name; write the line that it needs before."""
        if not isinstance(scalar, Named) or scalar.step is None:
            name = decimal(F(scalar))
            self._board.know(name, scalar)
            return name
        step = scalar.step
        if step.norm is not None:
            return self._norm(step.norm, step.value)
        if step.name:
            self._board.know(step.name, step.value)
            return step.name
        operands = [self._scalar(operand) for operand in step.operands]
        same = (step.operation, step.formula, *operands)
        if same in self._scalars:
            return self._scalars[same]
        found = self._called_scalars.get(id(scalar)) or _CALLED.get(step.operation, "correction")
        name = self._board.free(found, self._reserved)
        self._scalars[same] = name
        formula = step.formula or _formula(step.operation)
        written = formula.format(*(f"{{{operand}}}" for operand in operands))
        self._board.write(name, written, step.value)
        return name

    def _norm(self, number: int, value: np.float32) -> str:
        """Return a norm's name; where it is first used, the board is given it."""
        of = self._run.norms_of[number]
        same = ("norm", of)
        if same not in self._scalars:
            name = self._board.free("weight_norm" if of == "w" else "step_norm")
            self._scalars[same] = name
            what = "weights" if of == "w" else f"{self._names[of]} values"
            self._board.give(name, value, f"L2 norm of all {what} of the parameter")
        return self._scalars[same]


def _formula(operation: str) -> str:
    if operation in _SIGNS:
        return f"{{0}} {_SIGNS[operation]} {{1}}"
    return _OTHERS[operation][0]


def _write(board: Board, name: str, operation: Operation, operands: Sequence[str]) -> None:
    """Write the line of one operation."""
    kind = operation.name
    with np.errstate(all="ignore"):
        if kind in _SIGNS:
            board.compute(name, operands[0], _SIGNS[kind], operands[1])
        elif kind == "scal":
            board.compute(name, operands[0], "·", operands[1])
        elif kind in ("axpy", "multiply_add"):
            a, x, y = operands
            if board[a] == 0:  # then a BLAS does not look at x
                board.copy(name, y, f"{a} is 0")
            else:
                board.multiply_add(name, a, x, y)
        elif kind in ("powx_2", "powx_half"):
            board.power(name, operands[0], 2 if kind == "powx_2" else 0.5)
        elif kind == "sqrt":
            board.root(name, operands[0])
        elif kind == "square":
            board.compute(name, operands[0], "·", operands[0])
        elif kind == "where":
            condition, one, other = operands
            board.copy(name, one if board[condition] else other, condition)
        else:
            formula, compute = _OTHERS[kind]
            values = [board[operand] for operand in operands]
            written = formula.format(*(f"{{{operand}}}" for operand in operands))
            board.write(name, written, compute(*values))


def _caffe_sign(x: np.float32) -> np.float32:
    return F(x > 0) - F(x < 0)


_OTHERS: Dict[str, Tuple[str, Callable[..., Any]]] = {
    "negative": ("-{}", np.negative),
    "absolute": ("abs({})", np.abs),
    "sign": ("sign({})", np.sign),
    "caffe_sign": ("sign({})", _caffe_sign),
    "maximum": ("max({}, {})", np.maximum),
    "minimum": ("min({}, {})", np.minimum),
    "greater": ("{} > {}", np.greater),
    "greater_equal": ("{} ≥ {}", np.greater_equal),
    "less": ("{} < {}", np.less),
    "less_equal": ("{} ≤ {}", np.less_equal),
    "equal": ("{} = {}", np.equal),
    "not_equal": ("{} ≠ {}", np.not_equal),
}
