"""LLVM's types, and loops in its words."""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Sequence

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
def loop(b: Any, first: Any, past: Any, step: int, sums: Sequence[Any] = ()) -> Iterator[Any]:
    """Do what follows for all integers from first to past.

    Yield the integer and a list of sums so far, in which the body leaves the next ones. After the
    loop the list has the last.
    """
    before = b.block
    head, body, end = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    index, *carried = (b.phi(first_value.type) for first_value in (first, *sums))
    for phi, value in zip((index, *carried), (first, *sums)):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_signed("<", index, past), body, end)
    b.position_at_end(body)
    so_far = list(carried)
    yield index, so_far
    for phi, value in zip((index, *carried), (b.add(index, long(step)), *so_far)):
        phi.add_incoming(value, b.block)
    so_far[:] = carried
    b.branch(head)
    b.position_at_end(end)


@contextmanager
def loop_over_bits(b: Any, word: Any, sums: Any = ()) -> Iterator[Any]:
    """Do what follows for the number of each bit that is set in a word.

    In ``sums`` the body finds the sums so far, and leaves the next ones.
    """
    before = b.block
    head, body, end = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    bits, *carried = (b.phi(first.type) for first in (word, *sums))
    for phi, value in zip((bits, *carried), (word, *sums)):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_unsigned("!=", bits, word.type(0)), body, end)
    b.position_at_end(body)
    if sums:
        sums[:] = carried
    yield b.cttz(bits, BIT(1))
    left = b.and_(bits, b.sub(bits, word.type(1)))
    for phi, value in zip((bits, *carried), (left, *sums)):
        phi.add_incoming(value, b.block)
    if sums:
        sums[:] = carried
    b.branch(head)
    b.position_at_end(end)


@contextmanager
def handed_out(b: Any, counter: Any, count: Any) -> Iterator[Any]:
    """Do what follows for numbers below count that no other thread takes, until all are taken.

    A thread whose core is shared, with a BLAS's that waits for more work, say, takes fewer.
    """
    head, body, end = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    number = b.atomic_rmw("add", counter, long(1), "monotonic")
    b.cbranch(b.icmp_signed("<", number, count), body, end)
    b.position_at_end(body)
    yield number
    b.branch(head)
    b.position_at_end(end)
