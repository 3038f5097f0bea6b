"""One pass over memory: from the gradient to the new weights, sixteen values at a time.

What ``Updater`` composes of vector operations happens here to values while they are in registers:
clip, normalize, regularize, rule, apply. Where figures are wanted, their sums and extremes are
taken of a block of 1,024 values while it is in the cache. The rule's part is made from its program.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator

from llvmlite import ir

from caffe_pysgd.update.fused import layout
from caffe_pysgd.update.fused.figures import define_measure
from caffe_pysgd.update.fused.machine import Variant
from caffe_pysgd.update.fused.vectors import (
    BIT,
    DOUBLE,
    FLOAT,
    FLOATS,
    INT,
    LONG,
    POWF,
    VOID,
    Arithmetic,
    Values,
    long,
    loop,
    loop_over_bits,
    past_whole,
)
from caffe_pysgd.update.statistics import LANES

SYMBOL = "caffe_pysgd_pass"

# The addresses of: the table of addresses, of scalars, of chunks; how many chunks were handed out;
# how many there are; the addresses of scratch, powf, figures or sums of squares. And what to leave
# in the diffs.
ARGUMENTS = 9


def assembly(variant: Variant, has_fma: bool) -> str:
    """Return a pass in LLVM's language; its function is called ``SYMBOL``.

    Args:
        variant: which pass.
        has_fma: whether the processor has a fused multiply-add.
    """
    module = ir.Module()
    run = ir.Function(module, ir.FunctionType(VOID, [LONG] * ARGUMENTS), SYMBOL)
    b = ir.IRBuilder(run.append_basic_block())
    making = _Pass(b, variant, Arithmetic(variant.rounds_once, variant.exact, has_fma))
    with _handed_out(b, b.inttoptr(run.args[3], LONG.as_pointer()), run.args[4]) as number:
        making.chunk(number)
    b.ret_void()
    return str(module)


@contextmanager
def _handed_out(b, counter, count) -> Iterator[Any]:
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


class _Pass:
    """A pass while it is made: what its parts have in common."""

    def __init__(self, b, variant: Variant, how: Arithmetic) -> None:
        self.b, self.program, self.l1, self.how = b, variant.program, variant.l1, how
        (
            self.addresses, self.scalars, self.chunks, _, _, self.scratch, powf, self.sums, leaves
        ) = b.function.args  # fmt: skip
        self.powf = b.inttoptr(powf, POWF.as_pointer())
        self.listed = self._pointer(b.add(self.scratch, long(layout.LISTED)), LONG)
        self.measure = define_measure(b.module, how) if variant.figures else None
        self.note = _define_note(b.module) if variant.checked else None
        self.leaves_zeros = b.icmp_signed("==", leaves, long(layout.LEAVES_ZEROS))
        self.writes = b.icmp_signed("!=", leaves, long(layout.LEAVES_ANYTHING))

    def _pointer(self, address, kind=FLOAT):
        return self.b.inttoptr(address, kind.as_pointer())

    def _row(self, table, number, size, kind):
        """Return where a row of a table begins."""
        return self._pointer(self.b.add(table, self.b.mul(number, long(size))), kind)

    def _loads(self, array, count):
        return [self.b.load(self.b.gep(array, [long(k)])) for k in range(count)]

    def chunk(self, number) -> None:
        """Update a chunk."""
        b, program = self.b, self.program
        self.chunk_row = self._row(self.chunks, number, 8 * layout.CHUNK_COLUMNS, LONG)
        row, start, count = self._loads(self.chunk_row, layout.COUNT + 1)
        columns = layout.SLOTS + len(program.state)
        addresses = self._row(self.addresses, row, 8 * columns, LONG)
        self.x, self.d, *self.slots = map(self._pointer, self._loads(addresses, columns))
        columns = layout.RULE + program.scalars
        scalars = self._loads(self._row(self.scalars, row, 4 * columns, FLOAT), columns)
        nothing = b.bitcast(scalars[layout.NOTHING], INT)
        self.several, self.single = (
            Values(b, width, self.how, nothing, self.powf) for width in (LANES, 1)
        )
        self.c = {v: list(map(v.all_of, scalars)) for v in (self.several, self.single)}
        if program.norms:
            self.lanes = self._row(self.sums, number, 8 * LANES * len(program.norms), DOUBLE)
        else:
            quantities = layout.FIRST_SLOT + len(self.slots)
            size = layout.FIGURES.itemsize * quantities
            self.lanes = b.add(self.sums, b.mul(number, long(size)))
        past = b.add(start, count)
        with loop(b, start, past, layout.BLOCK) as (first, _):
            end = b.add(first, long(layout.BLOCK))
            end = b.select(b.icmp_signed("<", end, past), end, past)
            # As if these were as long as the parameter.
            self.arrays = [
                b.gep(self._pointer(b.add(self.scratch, long(layout.array_at(k)))), [b.neg(first)])
                for k in range(max(layout.UPDATES + 1, len(program.norms)))
            ]
            if program.norms:
                self._add_up_squares(first, end)
            elif self.measure:
                self._take_figures(first, end)
            else:
                self._each(self._update, first, end)

    def _each(self, body: Callable[..., None], first, past) -> None:
        """Do something with several values at once, then with those that are left, one by one."""
        b, whole = self.b, past_whole(self.b, first, past)
        with loop(b, first, whole, LANES, [long(0)]) as (i, left):
            self.several.marks = None
            body(self.several, i)
            if self.several.marks:
                marks = b.bitcast(self.several.marks, ir.IntType(LANES))
                left[0] = self._leave(left[0], i, b.zext(marks, LONG))
        rest = b.sub(b.shl(long(1), b.sub(past, whole)), long(1))
        with loop(b, long(0), self._leave(left[0], whole, rest), 1) as (k, _):
            vector = b.load(b.gep(self.listed, [k]))
            start, marks = b.lshr(vector, long(LANES)), b.and_(vector, long(2**LANES - 1))
            with loop_over_bits(b, marks) as lane:
                body(self.single, b.add(start, lane))

    def _leave(self, count, i, marks):
        """List the vector at i if any of its values is left; return how many are listed."""
        vector = self.b.or_(self.b.shl(i, long(LANES)), marks)
        self.b.store(vector, self.b.gep(self.listed, [count]))
        some = self.b.icmp_unsigned("!=", marks, long(0))
        return self.b.add(count, self.b.zext(some, LONG))

    def _take_figures(self, first, past) -> None:
        """Update a block, and take figures while it is in the cache."""
        seen, updates = self.arrays[layout.SEEN], self.arrays[layout.UPDATES]
        arrays = {layout.REGULARIZED: seen, layout.UPDATE: updates, layout.NEW_DATA: self.x}
        arrays.update(enumerate(self.slots, layout.FIRST_SLOT))
        if self.program.update in self.program.state:
            del arrays[layout.UPDATE]  # its figures are the state's

        def measure(quantity: int, array) -> None:
            lanes = self.b.add(self.lanes, long(layout.FIGURES.itemsize * quantity))
            self.b.call(self.measure, [array, first, past, lanes])

        measure(layout.GRADIENT, self.d)
        self._each(self._update, first, past)
        for quantity, array in arrays.items():
            measure(quantity, array)

    def _add_up_squares(self, first, past) -> None:
        """Do what is to be done up to norms; add up the squares of what they are wanted of."""
        b, program = self.b, self.program
        homes = {"w": self.x, **dict(zip(program.state, self.slots))}
        arrays = [homes.get(name) or array for name, array in zip(program.norms, self.arrays)]

        def up_to_norms(v: Values, i) -> None:
            values = self._rule(v, i)
            for name, array in zip(program.norms, arrays):
                if name not in homes:
                    v.store(values[name], array, i)
            if program.update:
                self._store(v, values[program.update], values["d"], self.d, i)

        self._each(up_to_norms, first, past)
        whole = past_whole(b, first, past)
        lanes = [b.gep(self.lanes, [long(LANES * k)]) for k in range(len(arrays))]
        sums = [self.several.load(row, long(0)) for row in lanes]
        with loop(b, first, whole, LANES, sums) as (i, sums):
            values = [self.several.load(array, i) for array in arrays]
            sums[:] = map(self.several.add_square, values, sums)
        for total, row in zip(sums, lanes):
            self.several.store(total, row, long(0))
        with loop(b, whole, past, 1) as (i, _):
            lane = b.and_(i, long(LANES - 1))
            for array, row in zip(arrays, lanes):
                total = self.single.add_square(
                    self.single.load(array, i), self.single.load(row, lane)
                )
                self.single.store(total, row, lane)

    def _rule(self, v: Values, i) -> Dict[str, Any]:
        """Compute what the rule does; store the new state; return all values by their names."""
        if self.measure and v.width > 1:  # the memory would be idle while figures are taken
            for array in (self.x, self.d, *self.slots):
                v.prefetch(array, self.b.add(i, long(layout.BLOCK)))
        x, d, c = v.load(self.x, i), v.load(self.d, i), self.c[v]
        values = {"w": x, "d": d, "g": self._seen(v, c, x, d)}
        values.update((f"c{k}", value) for k, value in enumerate(c[layout.RULE :]))
        values.update((f"s{k}", v.load(slot, i)) for k, slot in enumerate(self.slots))
        for number, (name, operands) in enumerate(self.program.operations):
            given = [values[operand] for operand in operands]
            numbers = [v.number(value) for value in given]
            if name == "where":
                numbers[0] = given[0]
            values[f"v{number}"] = getattr(v, name)(*numbers)
        values = {name: v.number(value) for name, value in values.items()}
        for k, (slot, name) in enumerate(zip(self.slots, self.program.state)):
            if name != f"s{k}":
                self._store(v, values[name], values[f"s{k}"], slot, i)
        return values

    def _store(self, v: Values, new, old, array, i) -> None:
        """Store what is settled; what is not is needed as it was, to be computed again."""
        v.store(self.b.select(v.marks, old, new) if v.marks else new, array, i)

    def _seen(self, v: Values, c, x, d):
        """Return what the rule sees: the gradient clipped, normalized and regularized."""
        clipped = v.scal(c[layout.CLIP], d)
        normalized = v.multiply(c[layout.NORMALIZATION], clipped)
        return v.axpy(c[layout.DECAY], v.caffe_sign(x) if self.l1 else x, normalized)

    def _update(self, v: Values, i) -> None:
        """Update the weights."""
        b, values = self.b, self._rule(v, i)
        x, d, update = (values[name] for name in ("w", "d", self.program.update))
        self._store(v, v.subtract(x, update), x, self.x, i)
        with b.if_then(self.writes):
            left = b.select(self.leaves_zeros, v.constant(0), update)
            self._store(v, left, d, self.d, i)
        if self.measure or self.note:
            v.store(values["g"], self.arrays[layout.SEEN], i)
        if self.measure:
            v.store(update, self.arrays[layout.UPDATES], i)
        if self.note:
            difference = b.fsub(update, update)
            unfit = b.fcmp_unordered("uno", difference, difference)
            unfit = b.and_(unfit, b.not_(v.marks)) if v.marks else unfit
            bits = b.bitcast(unfit, ir.IntType(v.width))
            with b.if_then(b.icmp_unsigned("!=", bits, bits.type(0)), likely=False):
                seen = self.arrays[layout.SEEN]
                b.call(self.note, [self.chunk_row, b.zext(bits, LONG), i, seen])


def _define_note(module):
    """Return a function that counts what is not finite, and notes where in a chunk the first is."""
    kinds = [LONG.as_pointer(), LONG, LONG, FLOATS]
    function = ir.Function(module, ir.FunctionType(VOID, kinds), "note")
    function.linkage = "internal"
    chunk, bits, index, gradients = function.args
    b = ir.IRBuilder(function.append_basic_block())
    unfit, at, gradient = (
        b.gep(chunk, [long(column)])
        for column in (layout.UNFIT, layout.UNFIT_AT, layout.UNFIT_GRADIENT)
    )
    before, first = b.load(unfit), b.add(index, b.cttz(bits, BIT(1)))
    b.store(b.add(before, b.ctpop(bits)), unfit)
    is_first = b.or_(b.icmp_signed("==", before, long(0)), b.icmp_signed("<", first, b.load(at)))
    with b.if_then(is_first):
        b.store(first, at)
        b.store(b.zext(b.bitcast(b.load(b.gep(gradients, [first])), INT), LONG), gradient)
    b.ret_void()
    return function
