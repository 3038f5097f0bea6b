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
    Norms,
    Operation,
    PerParameter,
    Symbol,
    Trace,
    Untraceable,
    trace,
)

F = np.float32

_MOST_NORMS = 8
_UNSEEN = "it takes a norm that nobody saw"

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
    norms: Sequence[Tuple[bool, np.float32]],
) -> None:
    """Write what a rule does to one weight.

    The board knows ``regularized``, ``weight``, the slots, ``local_rate``, ``decay``, and the
    hyper-parameters by their names.

    Args:
        norms: those that the rule takes, in order; whether each is that of the weights.

    Raises:
        Untraceable: what the rule does cannot be told.
    """
    names = {"g": "regularized", "w": "weight", **{f"s{k}": s for k, s in enumerate(rule.slots)}}
    writer = _Writer(board, rule.slots, names)
    known = [value for of_weights, value in norms if not of_weights]
    runs: List[_Run] = []
    while not runs or not runs[-1].traced.program.last:
        if len(runs) > len(known):
            raise Untraceable(_UNSEEN)
        runs.append(_Run(rule, _Scalars(board), h, iteration, norms, known[: len(runs)]))
    for number, run in enumerate(runs):
        writer.write(run, [later.traced.program.state for later in runs[number + 1 :]])


def takes_norms(rule: UpdateRule, h: HyperParameters, iteration: int) -> bool:
    """Return whether a rule takes norms, which a probe of one weight does not see.

    Of a rule that cannot be explained anyhow, it does not matter.
    """
    asked: List[bool] = []
    one = np.ones(1, F)

    def weights() -> np.ndarray:
        asked.append(True)
        return one

    try:
        trace(rule, h, one, one, iteration, Norms(weights, [one] * _MOST_NORMS))
        first = trace(rule, h, one, one, iteration, Norms(weights, []))
    except Untraceable:
        return False
    return bool(asked) or not first.program.last


class Named(PerParameter):
    """A scalar that knows how it came about.

    Attributes:
        step: what made it; None for a plain number.
    """

    is_one_scalar = True
    step: Optional[_Step] = None
    scalars: Optional[_Scalars] = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        if any(isinstance(operand, Symbol) for operand in inputs):
            return NotImplemented
        plain = [np.asarray(i) if isinstance(i, np.ndarray) else i for i in inputs]
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

    def derived(self, formula: str, value: Any, *others: Named) -> Named:
        """Return a scalar that a formula of this one, ``{0}``, and of others gives."""
        assert self.scalars is not None
        return self.scalars.made("", [self, *others], value, formula)


class _Step(NamedTuple):
    """How a scalar was made: its name is known beforehand, or it has a line of its own.

    A norm (``operation`` says so) has both: the board is given it where it is first used.
    """

    name: str
    operation: str
    operands: Tuple[Any, ...]
    value: np.float32
    formula: str = ""


class _Scalars:
    """The scalars of one run of a rule."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.all: List[Named] = []  # so that each keeps its identity to itself

    def named(self, name: str, value: Any, operation: str = "") -> Named:
        return self._new(_Step(name, operation, (), F(value)))

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
        return self._scalars.named(called, value) if isinstance(value, F) else value


class _Run:
    """A rule run on symbols, and what its source calls them."""

    def __init__(
        self,
        rule: UpdateRule,
        scalars: _Scalars,
        h: HyperParameters,
        iteration: int,
        norms: Sequence[Tuple[bool, np.float32]],
        known: Sequence[np.float32],
    ) -> None:
        board = scalars.board
        of_weights = [value for weights, value in norms if weights]

        def weights() -> np.ndarray:
            if not of_weights:
                raise Untraceable(_UNSEEN)
            return scalars.named("weight_norm", of_weights[0], "norm")

        told = [scalars.named(_norm_name(k), value, "norm") for k, value in enumerate(known)]
        self.locals: List[Dict[str, Any]] = []
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            self.traced: Trace = trace(
                rule,
                _Settings(h, scalars, rule.slots),  # type: ignore[arg-type]
                scalars.named("local_rate", board["local_rate"]),
                scalars.named("decay", board["decay"]),
                iteration,
                Norms(weights, told),
            )
        finally:
            sys.setprofile(before)

    def _note(self, frame: Any, event: str, argument: Any) -> None:
        if event != "return" or frame.f_code.co_filename.startswith(_NOT_A_RULES):
            return
        found = {
            name: (value, value.value if isinstance(value, Symbol) else "")
            for name, value in frame.f_locals.items()
            if isinstance(value, (Symbol, Named)) and name not in ("self", "_")
        }
        self.locals.append(found)


def _norm_name(number: int) -> str:
    return "step_norm" if number == 0 else f"step_norm_{number + 1}"


class _Writer:
    """Writes programs as lines, one after the other."""

    def __init__(self, board: Board, slots: Sequence[str], names: Dict[str, str]) -> None:
        self._board, self._slots, self._names = board, slots, names
        self._reserved = {"update", "new weight", *(f"new {slot}" for slot in slots)}
        self._scalars: Dict[Tuple[str, ...], str] = {}

    def write(self, run: _Run, later: Sequence[Sequence[str]]) -> None:
        """Write a program; ``later`` is what those that follow leave in the state."""
        found, last = run.traced.program, run.traced.program.last
        scalars, called = self._called(run)
        final = {found.update: "update"} if last else {}
        for k, (slot, value) in enumerate(zip(self._slots, found.state)):
            if value[0] == "v" and all(state[k] == f"s{k}" for state in later):
                final[value] = f"new {slot}"
        for number, operation in enumerate(found.operations):
            value = f"v{number}"
            operands = [self._operand(o, run, scalars) for o in operation.operands]
            name = final.get(value) or self._board.free(
                called.get(value) or _CALLED.get(operation.name, "value"), self._reserved
            )
            self._names[value] = name
            _write(self._board, name, operation, operands)
        if last:
            for slot, value in zip(self._slots, found.state):
                if self._names[value] != f"new {slot}":
                    self._board.copy(f"new {slot}", self._names[value])
            if self._names.get(found.update, "") != "update":
                self._board.copy("update", self._operand(found.update, run, scalars))
            return
        of, state = self._names[found.update], [self._names[v] for v in found.state]
        self._names.update({"g": of, **{f"s{k}": name for k, name in enumerate(state)}})

    def _called(self, run: _Run) -> Tuple[Dict[int, str], Dict[str, str]]:
        """Return what the source calls scalars, by their identity, and values."""
        scalars: Dict[int, str] = {}
        values: Dict[str, str] = {}
        first = run.traced.first
        for found in run.locals:
            for name, (thing, value) in found.items():
                if isinstance(thing, Named):
                    scalars.setdefault(id(thing), name)
                elif value[0] == "v" and int(value[1:]) >= first:
                    values.setdefault(f"v{int(value[1:]) - first}", name)
        return scalars, values

    def _operand(self, operand: str, run: _Run, scalars: Dict[int, str]) -> str:
        if operand[0] != "c":
            return self._names[operand]
        return self._scalar(run.traced.scalars[int(operand[1:])], scalars)

    def _scalar(self, scalar: Any, called: Dict[int, str]) -> str:
        """Return a scalar's name; write the line that it needs before."""
        if not isinstance(scalar, Named) or scalar.step is None:
            name = decimal(F(scalar))
            self._board.know(name, scalar)
            return name
        step = scalar.step
        if step.name:
            if step.operation == "norm":
                self._norm(step)
            else:
                self._board.know(step.name, step.value)
            return step.name
        operands = [self._scalar(operand, called) for operand in step.operands]
        same = (step.operation, step.formula, *operands)
        if same in self._scalars:
            return self._scalars[same]
        found = called.get(id(scalar)) or _CALLED.get(step.operation, "correction")
        name = self._board.free(found, self._reserved)
        self._scalars[same] = name
        formula = step.formula or _formula(step.operation)
        written = formula.format(*(f"{{{operand}}}" for operand in operands))
        self._board.write(name, written, step.value)
        return name

    def _norm(self, step: _Step) -> None:
        if self._board.free(step.name) == step.name:
            of = "all weights" if step.name == "weight_norm" else f"all {self._names['g']} values"
            self._board.give(step.name, step.value, f"L2 norm of {of} of the parameter")


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
