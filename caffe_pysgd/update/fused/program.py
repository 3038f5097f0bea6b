"""A rule's equation as a program, found by running its ``update`` once on symbols.

A symbol stands for one value of an array. What a rule does to it, with NumPy's functions or with
the kernels' vector operations, becomes a line of a straight program for one value; the scalars that
it uses are collected in the order in which they occur. A norm cuts it in two: up to the array that
it is of, and from there. What depends on more than one value otherwise, or branches on values, or
calls what has no counterpart here, cannot be traced.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from caffe_pysgd.update.hyperparameters import HyperParameters

F = np.float32


class Untraceable(Exception):
    """A rule that is no straight program for one value; the message says why."""


class Operation(NamedTuple):
    """One line: its result is ``v0``, ``v1``, ... by its number.

    Attributes:
        name: what is done: a vector operation's name, or a NumPy function's.
        operands: ``g`` (the gradient), ``w`` (the weight), ``s0`` (the first slot), ``c0`` (the
            first scalar), or the result of an earlier line.
    """

    name: str
    operands: Tuple[str, ...]


class Program(NamedTuple):
    """What a rule does to one value of a parameter.

    Attributes:
        operations: its lines.
        state: for each slot the value that it has afterwards.
        update: the update value; or, where it ends at a norm, the value that this is of.
        scalars: how many scalars there are.
        last: whether it does not end at a norm.
    """

    operations: Tuple[Operation, ...]
    state: Tuple[str, ...]
    update: str
    scalars: int
    last: bool


Scalars = List[Any]
"""A program's scalars: a float32 each, or an array of one for each parameter."""


class Trace(NamedTuple):
    """What came of running a rule on symbols.

    Attributes:
        program: what it does, from the last norm that is known, up to the next or to the end.
        scalars: the program's.
        reads_iteration: whether the scalars may be others at another iteration.
        first: how many operations there were before the program's.
    """

    program: Program
    scalars: Scalars
    reads_iteration: bool
    first: int


class Norms(NamedTuple):
    """The L2 norms that a rule asks for, float32, one for each parameter.

    Attributes:
        weights: returns those of the weights.
        known: those of other arrays, in the order in which the rule asks for them. After each,
            the program goes on with that array in the place of the gradient.
    """

    weights: Callable[[], np.ndarray]
    known: Sequence[np.ndarray]


def trace(
    rule: Any,
    h: HyperParameters,
    rates: np.ndarray,
    decays: np.ndarray,
    iteration: int,
    norms: Optional[Norms] = None,
    expected: Optional[Program] = None,
) -> Trace:
    """Run a rule on symbols for parameters with the same hyper-parameters.

    Args:
        rule: its ``update`` and its ``slots``.
        h: the hyper-parameters.
        rates, decays: the local rates and decays, float32, one for each parameter.
        iteration: counted from 0.
        norms: the norms that are known.
        expected: a program that it may be again.

    Raises:
        Untraceable: the rule is no straight program.
    """
    state: Dict[str, Symbol] = {}
    lines = _Lines(state, norms)
    state.update((slot, Symbol(lines, f"s{k}")) for k, slot in enumerate(rule.slots))
    step = _Step(lines, dict(state), rates, decays, iteration, h)
    before, last = dict(vars(rule)), True
    try:
        value = rule.update(step)
    except _UnknownNorm as unknown:
        value, last = unknown.of, False
    except Untraceable:
        raise
    except Exception as error:  # it is found again, and told, where the rule meets real arrays
        raise Untraceable(f"{type(error).__name__}: {error}") from error
    if not isinstance(value, Symbol):
        raise Untraceable("what it returns does not depend on its arrays")
    if vars(rule) != before:
        raise Untraceable("it keeps something in itself")
    if step.state.keys() != state.keys() or any(step.state[k] is not state[k] for k in state):
        raise Untraceable("it puts another array into its state")
    found = (*lines.since_the_last_norm(value), last)
    if expected != found:
        expected = Program(tuple(Operation(*line) for line in found[0]), *found[1:])
    reads_iteration = step.reads_iteration or bool(lines.asked)
    return Trace(expected, lines.scalars, reads_iteration, lines.first)


class PerParameter(np.ndarray):
    """A scalar that each parameter has a value of its own for."""

    is_one_scalar = False  # and so may be a double, which NumPy rounds where it meets an array

    def __bool__(self) -> bool:
        raise Untraceable("it branches on what parameters may differ in")

    def __array_function__(self, function: Any, types: Any, args: Any, more: Any) -> Any:
        found = super().__array_function__(function, types, args, more)
        return found.view(PerParameter) if isinstance(found, np.ndarray) else found


def _per_parameter(values: np.ndarray) -> PerParameter:
    return values if isinstance(values, PerParameter) else values.view(PerParameter)


class _UnknownNorm(Exception):
    def __init__(self, of: Symbol) -> None:
        self.of = of


_ARRAY = np.empty(1, F)


class _Lines:
    """The lines written so far. Names of what is in memory end with how many norms were asked for.

    At a norm, its array takes the gradient's place, the state is written, and all else is lost.
    """

    def __init__(self, state: Dict[str, Symbol], norms: Optional[Norms]) -> None:
        self.operations: List[Tuple[str, Tuple[str, ...]]] = []
        self.scalars: Scalars = []
        self.registers: Dict[int, Symbol] = {}
        self.asked = 0
        self._state, self._norms, self.first = state, norms, 0

    def write(self, name: str, *operands: Any) -> str:
        self.operations.append((name, tuple(map(self.operand, operands))))
        return f"v{self.first + len(self.operations) - 1}"

    def operand(self, what: Any) -> str:
        if isinstance(what, Symbol):
            return what.value
        if isinstance(what, str):
            return what
        if isinstance(what, PerParameter):
            if what.dtype != F and not what.is_one_scalar:
                raise Untraceable(f"it computes in {what.dtype}")
        elif type(what) is not F:
            if np.ndim(what):
                raise Untraceable("it brings an array of its own")
            if np.result_type(what, _ARRAY) != F:
                raise Untraceable(f"it computes in {np.result_type(what, _ARRAY)}")
            what = F(what)
        self.scalars.append(what)
        return f"c{len(self.scalars) - 1}"

    def norm(self, of: Symbol) -> np.ndarray:
        """Return the norms of an array, one for each parameter."""
        if self._norms is None:
            raise Untraceable("it takes a norm")
        if of.value == "w":
            return _per_parameter(self._norms.weights())
        if self.asked == len(self._norms.known):
            raise _UnknownNorm(of)
        self.asked += 1
        self.first += len(self.operations)
        self.operations, self.scalars, self.registers = [], [], {}
        of.value = f"g.{self.asked}"
        for k, symbol in enumerate(self._state.values()):
            if symbol is not of:
                symbol.value = f"s{k}.{self.asked}"
        return _per_parameter(self._norms.known[self.asked - 1])

    def since_the_last_norm(self, value: Symbol) -> Tuple[Any, ...]:
        """Return a program's fields."""
        state = tuple(symbol.value for symbol in self._state.values())
        if not self.asked:
            return tuple(self.operations), state, value.value, len(self.scalars)
        operations = tuple(
            (name, tuple(map(self._renamed, operands))) for name, operands in self.operations
        )
        state = tuple(map(self._renamed, state))
        return operations, state, self._renamed(value.value), len(self.scalars)

    def _renamed(self, name: str) -> str:
        if name[0] in "wc":
            return name
        if name[0] == "v" and int(name[1:]) >= self.first:
            return f"v{int(name[1:]) - self.first}"
        known, _, norm = name.partition(".")
        if norm != str(self.asked):
            raise Untraceable("after a norm it needs more than the array that this was of")
        return known


class _Step:
    """What a rule is told: :class:`caffe_pysgd.update.rules.base.ParameterStep` in symbols."""

    def __init__(
        self,
        lines: _Lines,
        state: Dict[str, Symbol],
        rates: np.ndarray,
        decays: np.ndarray,
        iteration: int,
        h: HyperParameters,
    ) -> None:
        self.gradient, self.data = Symbol(lines, "g"), _Constant(lines, "w")
        self.state, self.h, self.kernels = state, h, _Kernels(lines)
        self.rate, self.decay = _per_parameter(rates), _per_parameter(decays)
        self._iteration, self.reads_iteration = iteration, False

    @property
    def iteration(self) -> int:
        self.reads_iteration = True
        return self._iteration

    @property
    def name(self) -> str:
        raise Untraceable("it asks for the parameter's name")


# NumPy's functions whose bits a compiler is sure of, under their names in a program.
_ARITHMETIC = ("add", "subtract", "multiply", "divide", "negative", "sqrt", "square", "absolute")
_CHOICES = ("sign", "maximum", "minimum", "greater", "greater_equal", "less", "less_equal", "equal")
NAMES = {name: name for name in (*_ARITHMETIC, *_CHOICES, "not_equal")}
NAMES.update({"true_divide": "divide", "fabs": "absolute"})
_POWERS = {2: "square", 0.5: "sqrt"}  # as an array's ``**`` takes them


class Symbol(NDArrayOperatorsMixin):
    """One value of an array; changed in place, it stands for another value."""

    def __init__(self, lines: _Lines, value: str) -> None:
        self.lines, self.value = lines, value

    def assign(self, value: str) -> Symbol:
        self.value = value
        return self

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Tuple[Any, ...] = (), **more: Any
    ) -> Symbol:
        name = NAMES.get(ufunc.__name__)
        if name is None or method != "__call__" or more:
            raise Untraceable(f"it calls np.{ufunc.__name__}")
        value = self.lines.write(name, *inputs)
        if not out:
            return Symbol(self.lines, value)
        if not isinstance(out[0], Symbol):
            raise Untraceable("it brings an array of its own")
        return out[0].assign(value)

    def __array_function__(self, function: Any, types: Any, args: Any, more: Any) -> Any:
        known = _FUNCTIONS.get(function)
        if known is None or more:
            raise Untraceable(f"it calls np.{function.__name__}")
        return known(self.lines, *args)

    def __pow__(self, exponent: Any) -> Symbol:
        if np.ndim(exponent) or exponent not in _POWERS:
            raise Untraceable("it takes a power")
        return Symbol(self.lines, self.lines.write(_POWERS[exponent], self))

    def __bool__(self) -> bool:
        raise Untraceable("it branches on values")

    def __setitem__(self, where: Any, what: Any) -> None:
        _refuse_single_values(where)
        self.assign(self.lines.operand(what))

    def __getitem__(self, where: Any) -> Symbol:
        _refuse_single_values(where)
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Untraceable(f"it asks for an array's {name}")

    def fill(self, what: Any) -> None:
        self.assign(self.lines.operand(what))

    def copy(self) -> Symbol:
        return Symbol(self.lines, self.value)


def _refuse_single_values(where: Any) -> None:
    if not (where is Ellipsis or (isinstance(where, slice) and where == slice(None))):
        raise Untraceable("it picks single values")


class _Constant(Symbol):
    """A value that a rule must not change: the weight."""

    def assign(self, value: str) -> Symbol:
        raise Untraceable("it changes the weights")


def _where(lines: _Lines, condition: Any, one: Any, other: Any) -> Symbol:
    return Symbol(lines, lines.write("where", condition, one, other))


def _clip(lines: _Lines, values: Any, low: Any, high: Any) -> Symbol:
    raised = values if low is None else lines.write("maximum", values, low)
    return Symbol(lines, lines.write("minimum", raised, high) if high is not None else raised)


def _copyto(lines: _Lines, target: Any, source: Any) -> None:
    if not isinstance(target, Symbol):
        raise Untraceable("it brings an array of its own")
    target.assign(lines.operand(source))


_FUNCTIONS: Dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.clip: _clip,
    np.copyto: _copyto,
    np.linalg.norm: _Lines.norm,
}


class _Kernels:
    """The vector operations of :class:`NumpyKernels`, written down."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def scratch(self, like: Any, number: int = 0) -> Symbol:
        # What it holds before it is written nobody may use; "g" will do.
        return self._lines.registers.setdefault(number, Symbol(self._lines, "g"))

    # A BLAS looks whether a scalar is 0, and then does not look at the array. Here that is done
    # once, where the scalar is the same for all parameters.

    def axpy(self, a: Any, x: Symbol, y: Symbol) -> None:
        if isinstance(a, PerParameter):
            y.assign(self._lines.write("axpy", a, x, y))
        elif a != 0:
            y.assign(self._lines.write("multiply_add", a, x, y))

    def axpby(self, a: Any, x: Symbol, b: Any, y: Symbol) -> None:
        self.scal(b, y)
        self.axpy(a, x, y)

    def scal(self, a: Any, x: Symbol) -> None:
        self.scale(a, x, x)

    def scale(self, a: Any, x: Symbol, out: Symbol) -> None:
        if isinstance(a, PerParameter):
            out.assign(self._lines.write("scal", a, x))
        elif a != 0:
            out.assign(self._lines.write("multiply", a, x))
        else:
            out.fill(F(0))

    def copy(self, x: Symbol, out: Symbol) -> None:
        out.assign(x.value)

    def add(self, x: Symbol, y: Symbol, out: Symbol) -> None:
        out.assign(self._lines.write("add", x, y))

    def add_scalar(self, a: Any, x: Symbol) -> None:
        x.assign(self._lines.write("add", x, a))

    def mul(self, x: Symbol, y: Symbol, out: Symbol) -> None:
        out.assign(self._lines.write("multiply", x, y))

    def div(self, x: Symbol, y: Symbol, out: Symbol) -> None:
        out.assign(self._lines.write("divide", x, y))

    def powx(self, x: Symbol, exponent: Any, out: Symbol) -> None:
        names = {2.0: "powx_2", 0.5: "powx_half"}
        if float(exponent) not in names:
            raise Untraceable(f"it takes values to the power of {exponent}")
        out.assign(self._lines.write(names[float(exponent)], x))

    def set(self, a: Any, x: Symbol) -> None:
        x.fill(a)

    def sign(self, x: Symbol, out: Symbol) -> None:
        out.assign(self._lines.write("caffe_sign", x))

    def dot(self, x: Symbol, y: Symbol) -> Any:
        raise Untraceable("it sums over a parameter")
