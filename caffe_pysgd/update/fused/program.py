"""A rule's equation as a program, found by running its ``update`` once on symbols.

A symbol stands for one value of an array. What a rule does to it, with NumPy's functions or with
the kernels' vector operations, becomes a line of a straight program for one value; the scalars that
it uses are collected in the order in which they occur. Norms cut it: one program goes up to them,
and the next one, which begins anew, has them among its scalars. What depends on more than one value
otherwise, or branches on values, or calls what has no counterpart here, cannot be traced.
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
    """What a rule does to one value of a parameter, up to norms or to the end.

    Attributes:
        operations: its lines.
        state: for each slot the value that it has afterwards.
        update: the update value; of a program up to norms, what it leaves in its place, or "".
        scalars: how many scalars the rule has.
        norms: the values whose norms are wanted, if it ends there.
    """

    operations: Tuple[Operation, ...]
    state: Tuple[str, ...]
    update: str
    scalars: int
    norms: Tuple[str, ...]


Scalars = List[Any]
"""A program's scalars: a float32 each, or an array of one for each parameter."""


class Trace(NamedTuple):
    """What came of running a rule on symbols.

    Attributes:
        programs: up to each call of ``norms``, where they change nothing, and then to the end.
        scalars: the last program's; the others' are the first of these.
        reads_iteration: whether they may be others at another iteration.
        rates: which of the scalars are the rates; None where another was computed from what
            parameters differ in.
    """

    programs: Tuple[Program, ...]
    scalars: Scalars
    reads_iteration: bool
    rates: Optional[List[int]]


def trace(
    rule: Any,
    h: HyperParameters,
    rates: np.ndarray,
    decays: np.ndarray,
    iteration: int,
    norms: Sequence[np.ndarray] = (),
    expected: Tuple[Program, ...] = (),
) -> Trace:
    """Run a rule on symbols for parameters with the same hyper-parameters.

    Args:
        rule: its ``update`` and its ``slots``.
        h: the hyper-parameters.
        rates, decays: the local rates and decays, float32, one for each parameter.
        iteration: counted from 0.
        norms: those that are known, in the order in which it asks for them: float32, one for each
            parameter. All others are taken for 1.
        expected: the programs that it may be again.

    Raises:
        Untraceable: the rule is no straight program.
    """
    state: Dict[str, Symbol] = {}
    lines = _Lines(norms)
    state.update((slot, Symbol(lines, f"s{k}")) for k, slot in enumerate(rule.slots))
    step = _Step(lines, dict(state), rates, decays, iteration, h)
    before = dict(vars(rule))
    try:
        value = rule.update(step)
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
    found = lines.programs([symbol.value for symbol in state.values()], value.value)
    programs = expected if expected == found else found
    return Trace(programs, lines.scalars, step.reads_iteration, _rates_among(lines.scalars, step))


def _rates_among(scalars: Scalars, step: _Step) -> Optional[List[int]]:
    own = [one for one in scalars if isinstance(one, PerParameter)]
    if any(one is not step.rate and one is not step.decay for one in own):
        return None
    return [number for number, one in enumerate(scalars) if one is step.rate]


class PerParameter(np.ndarray):
    """A scalar that each parameter has a value of its own for.

    NumPy computes with it in the type that it takes for scalars, which may be another one than that
    for arrays.
    """

    def __bool__(self) -> bool:
        raise Untraceable("it branches on what parameters may differ in")

    def __pow__(self, exponent: Any) -> Any:
        return np.power(self, exponent)

    def rounded(self) -> np.ndarray:
        """Return it as it is where it meets an array."""
        return self if self.dtype == F else self.astype(F)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        if any(isinstance(operand, Symbol) for operand in inputs):
            return NotImplemented
        more.pop("out", None)  # to a scalar, ``*=`` gives another one
        if method != "__call__" or more or ufunc is np.power:
            raise Untraceable(f"it calls np.{ufunc.__name__}")
        return ufunc(*_as_scalars(inputs)).view(PerParameter)

    def __array_function__(self, function: Any, types: Any, args: Any, more: Any) -> Any:
        if any(issubclass(kind, Symbol) for kind in types):
            return NotImplemented
        if function is np.where and len(args) == 3:
            chosen: Any = np.where(np.asarray(args[0]), *_as_scalars(args[1:]))
            return chosen.view(PerParameter)
        if function is np.clip and not more and all(one is not None for one in args):
            return np.minimum(np.maximum(args[0], args[1]), args[2])
        raise Untraceable(f"it calls np.{function.__name__}")


def _as_scalars(operands: Sequence[Any]) -> List[np.ndarray]:
    if any(not isinstance(one, PerParameter) and np.ndim(one) for one in operands):
        raise Untraceable("it brings an array of its own")
    like = [one.dtype.type(1) if isinstance(one, PerParameter) else one for one in operands]
    return [np.asarray(one, np.result_type(*like)) for one in operands]


def _per_parameter(values: np.ndarray) -> PerParameter:
    return values if isinstance(values, PerParameter) else values.view(PerParameter)


_ARRAY = np.empty(1, F)


class _Lines:
    """The lines written so far, and the norms asked for."""

    def __init__(self, norms: Sequence[np.ndarray]) -> None:
        self.scalars: Scalars = []
        self.registers: Dict[int, Symbol] = {}
        self._operations: List[Operation] = []
        self._norms = iter(norms)
        self._asked: List[Tuple[int, Tuple[str, ...]]] = []  # after how many lines, and of what

    def write(self, name: str, *operands: Any) -> str:
        self._operations.append(Operation(name, tuple(map(self.operand, operands))))
        return f"v{len(self._operations) - 1}"

    def operand(self, what: Any) -> str:
        if isinstance(what, Symbol):
            return what.value
        if isinstance(what, str):
            return what
        if type(what) is not F:
            shared = not isinstance(what, PerParameter)
            if shared and np.ndim(what):
                raise Untraceable("it brings an array of its own")
            kind = np.result_type(what if shared else what.dtype.type(1), _ARRAY)
            if kind != F:
                raise Untraceable(f"it computes in {kind}")
            what = F(what) if shared else what.rounded()
        self.scalars.append(what)
        return f"c{len(self.scalars) - 1}"

    def norms(self, arrays: Sequence[Any], unknown: np.ndarray) -> Tuple[PerParameter, ...]:
        """Return the norms of arrays, each one for each parameter."""
        if not all(isinstance(array, Symbol) for array in arrays):
            raise Untraceable("it brings an array of its own")
        of = tuple(array.value for array in arrays)
        if any(value[0] == "c" for value in of):
            raise Untraceable("it takes the norm of a scalar")
        if of:
            self._asked.append((len(self._operations), of))
        return tuple(_per_parameter(next(self._norms, unknown)) for _ in of)

    def programs(self, state: Sequence[str], update: str) -> Tuple[Program, ...]:
        """Return the programs, given what comes out in the end."""
        count, unchanged = len(self.scalars), tuple(f"s{k}" for k in range(len(state)))
        parts = [
            Program(tuple(self._operations[:lines]), unchanged, "", count, norms)
            for lines, norms in self._asked
        ]
        return (*parts, Program(tuple(self._operations), tuple(state), update, count, ()))


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
        self._lines, self._one = lines, np.ones(rates.shape, F)
        self.gradient, self.data = Symbol(lines, "g"), _Constant(lines, "w")
        self.state, self.h, self.kernels = state, h, _Kernels(lines)
        self.rate, self.decay = _per_parameter(rates), _per_parameter(decays)
        self._iteration, self.reads_iteration = iteration, False

    @property
    def iteration(self) -> int:
        self.reads_iteration = True
        return self._iteration

    def norms(self, *arrays: Any) -> Tuple[PerParameter, ...]:
        return self._lines.norms(arrays, self._one)

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
        if function is np.linalg.norm:
            raise Untraceable("it calls np.linalg.norm; p.norms(...) can be fused")
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
