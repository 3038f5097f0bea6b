"""LLVM's types, and loops in its words."""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Sequence

from llvmlite import ir

from caffe_pysgd.update.statistics import LANES

FLOAT, DOUBLE, VOID = ir.FloatType(), ir.DoubleType(), ir.VoidType()
BIT, INT, LONG = (ir.IntType(bits) for bits in (1, 32, 64))
WORD = ir.IntType(LANES)  # a bit for each value of a vector
FLOATS = FLOAT.as_pointer()  # typed pointers: LLVM reads these, too, since it has others
POWF = ir.FunctionType(FLOAT, [FLOAT, FLOAT])


def long(value: int) -> Any:
    """Return an integer."""
    return ir.Constant(LONG, value)


def past_whole(b: Any, first: Any, past: Any) -> Any:
    """Return how far from first one comes in steps of ``LANES`` without going past."""
    return b.add(first, b.and_(b.sub(past, first), long(-LANES)))


@contextmanager
def _while(b: Any, values: Sequence[Any], goes_on: Callable[..., Any]) -> Iterator[List[Any]]:
    """Do what follows as long as it goes on with these values.

    Yield a list of them, in which the body leaves the next ones. After the loop it has the last.
    """
    before = b.block
    head, body, end = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    phis = [b.phi(value.type) for value in values]
    for phi, value in zip(phis, values):
        phi.add_incoming(value, before)
    b.cbranch(goes_on(*phis), body, end)
    b.position_at_end(body)
    now = list(phis)
    yield now
    for phi, value in zip(phis, now):
        phi.add_incoming(value, b.block)
    now[:] = phis
    b.branch(head)
    b.position_at_end(end)


@contextmanager
def loop(b: Any, first: Any, past: Any, step: int, sums: Sequence[Any] = ()) -> Iterator[Any]:
    """Do what follows for all integers from first to past.

    Yield the integer and a list of sums so far, in which the body leaves the next ones. After the
    loop the list has the last.
    """
    with _while(b, [first, *sums], lambda index, *_: b.icmp_signed("<", index, past)) as now:
        index, *so_far = now
        yield index, so_far
        now[:] = b.add(index, long(step)), *so_far
    so_far[:] = now[1:]


@contextmanager
def loop_over_bits(b: Any, word: Any, sums: Sequence[Any] = ()) -> Iterator[Any]:
    """Do what follows for the number of each bit that is set in a word; yield as ``loop`` does."""
    none = word.type(0)
    with _while(b, [word, *sums], lambda bits, *_: b.icmp_unsigned("!=", bits, none)) as now:
        bits, *so_far = now
        yield b.cttz(bits, BIT(1)), so_far
        now[:] = b.and_(bits, b.sub(bits, word.type(1))), *so_far
    so_far[:] = now[1:]


@contextmanager
def handed_out(b: Any, counter: Any, count: Any) -> Iterator[Any]:
    """Do what follows for numbers below count that no other thread takes, until all are taken.

    A thread whose core is shared, with a BLAS's that waits for more work, say, takes fewer.
    """
    taken: List[Any] = []

    def take() -> Any:
        taken.append(b.atomic_rmw("add", counter, long(1), "monotonic"))
        return b.icmp_signed("<", taken[0], count)

    with _while(b, [], take):
        yield taken[0]
