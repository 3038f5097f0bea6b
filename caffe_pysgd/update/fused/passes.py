"""One pass over memory: from the gradient to the new weights, sixteen values at a time.

What ``Updater`` composes of vector operations happens here to values while they are in registers:
clip, normalize, regularize, rule, apply. Where figures are wanted, their sums and extremes are
taken of a block of values while it is in the cache. The rule's part is made from its program.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
from __future__ import annotations

from typing import Any, Dict

from llvmlite import ir

from caffe_pysgd.update.fused import layout
from caffe_pysgd.update.fused.few import Few
from caffe_pysgd.update.fused.figures import define_measure
from caffe_pysgd.update.fused.flow import (
    BIT,
    DOUBLE,
    FLOAT,
    FLOATS,
    INT,
    LONG,
    POWF,
    VOID,
    WORD,
    handed_out,
    long,
    loop,
    loop_over_bits,
    past_whole,
)
from caffe_pysgd.update.fused.machine import Variant
from caffe_pysgd.update.fused.vectors import Arithmetic, Part, Values
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
    how = Arithmetic(variant.rounds_once, variant.exact, has_fma)
    measure = define_measure(module, how) if variant.figures else None
    note = _define_note(module) if variant.checked else None
    run, few = (
        ir.Function(module, ir.FunctionType(VOID, [LONG] * arguments), name)
        for name, arguments in ((SYMBOL, ARGUMENTS), ("few", ARGUMENTS + 3))
    )
    making = _Pass(run, variant, how, measure, note, few)
    making.define_run()
    if making.powers:
        few.linkage = "internal"
        few.attributes.add("noinline")  # the loop over the many needs the registers
        _Pass(few, variant, how, measure, note, few).define_few()
    return str(module)


class _Pass:
    """A pass while it is made.

    It is two functions. One updates whole vectors; where libm may round a power otherwise than the
    processor, it leaves the values as they were, and marks them. The other updates these few.

    Attributes:
        powers: the name, the operand and the result of each power that must be libm's.
        cut: the number of operations up to the last root of these, or 0.
        v: how values are computed, in the function that is made.
        several, single: so many as a vector has, and one.
        x, d, slots: the arrays of the parameter.
        arrays: those in the scratch.
        marks: which of the values that are being updated are left; None: none.
    """

    def __init__(self, function, variant: Variant, how: Arithmetic, measure, note, few) -> None:
        self.b = b = ir.IRBuilder(function.append_basic_block())
        self.program, self.how = variant.program, how
        self.l1, self.scaled = variant.l1, variant.scaled
        self.powers = [
            (operation.name, operation.operands[0], f"v{number}")
            for number, operation in enumerate(self.program.operations)
            if how.exact and operation.name.startswith("powx")
        ]
        roots = [int(power[1:]) for name, _, power in self.powers if name == "powx_half"]
        self.cut = max(roots) + 1 if roots else 0
        again = variant.figures or (self.program.norms and self.powers)
        self.block = layout.SMALL_BLOCK if again else layout.BLOCK
        self.measure, self.note, self.few = measure, note, few
        (
            self.addresses, self.scalars, self.chunks, self.counter, self.count, self.scratch,
            self.powf, self.sums, leaves
        ) = b.function.args[:ARGUMENTS]  # fmt: skip
        self.leaves_zeros = b.icmp_signed("==", leaves, long(layout.LEAVES_ZEROS))
        self.writes = b.icmp_signed("!=", leaves, long(layout.LEAVES_ANYTHING))

    def define_run(self) -> None:
        """Update all chunks, each in blocks."""
        b = self.b
        counter = self._pointer(self.counter, LONG)
        with handed_out(b, counter, self.count) as self.number:
            start, past = self._begin_chunk()
            self.v = self.several
            with loop(b, start, past, self.block) as (first, _):
                end = b.add(first, long(self.block))
                self._begin_block(first)
                self._block(b.select(b.icmp_signed("<", end, past), end, past))
        b.ret_void()

    def define_few(self) -> None:
        """Update those values of a block that are left, and marked."""
        b = self.b
        picked = self._pointer(b.add(self.scratch, long(layout.PICKED)), LONG)
        powf = b.inttoptr(self.powf, POWF.as_pointer())
        buffers = [b.alloca(FLOAT, LANES) for _ in range(2)]
        self.number, first, past = b.function.args[ARGUMENTS:]
        self._begin_chunk()
        self._begin_block(first)
        self.v = Few(b, self.how, self.nothing, powf, buffers, picked)
        count = self._pick(past, picked)
        with loop(b, long(0), count, LANES) as (k, _):
            self._values(self.v.begin(k, count))
        b.ret_void()

    def _pointer(self, address, kind=FLOAT):
        return self.b.inttoptr(address, kind.as_pointer())

    def _row(self, table, number, size, kind):
        """Return where a row of a table begins."""
        return self._pointer(self.b.add(table, self.b.mul(number, long(size))), kind)

    def _loads(self, array, count):
        return [self.b.load(self.b.gep(array, [long(k)])) for k in range(count)]

    def _begin_chunk(self):
        """Find what belongs to a chunk; return its first value, and where it ends."""
        b, program = self.b, self.program
        self.chunk_row = self._row(self.chunks, self.number, 8 * layout.CHUNK_COLUMNS, LONG)
        row, start, count = self._loads(self.chunk_row, layout.COUNT + 1)
        columns = layout.SLOTS + len(program.state)
        addresses = self._row(self.addresses, row, 8 * columns, LONG)
        self.x, self.d, *self.slots = map(self._pointer, self._loads(addresses, columns))
        columns = layout.RULE + program.scalars
        scalars = self._loads(self._row(self.scalars, row, 4 * columns, FLOAT), columns)
        self.nothing = b.bitcast(scalars[layout.NOTHING], INT)
        self.several, self.single = (
            Values(b, width, self.how, self.nothing) for width in (LANES, 1)
        )
        self.c = list(map(self.several.all_of, scalars))
        if program.norms:
            self.lanes = self._row(self.sums, self.number, 8 * LANES * len(program.norms), DOUBLE)
        else:
            quantities = layout.FIRST_SLOT + len(self.slots)
            size = layout.FIGURES.itemsize * quantities
            self.lanes = b.add(self.sums, b.mul(self.number, long(size)))
        return start, b.add(start, count)

    def _begin_block(self, first) -> None:
        """Find the arrays of a block, as if they were as long as the parameter."""
        b, self.first = self.b, first
        self.arrays = [
            b.gep(self._pointer(b.add(self.scratch, long(layout.array_at(k)))), [b.neg(first)])
            for k in range(max(layout.UPDATES + 1, len(self.program.norms)))
        ]
        homes = {"w": self.x, **dict(zip(self.program.state, self.slots))}
        self.normed = [
            (name, homes.get(name) or array, name in homes)
            for name, array in zip(self.program.norms, self.arrays)
        ]

    def _block(self, past) -> None:
        """Update a block."""
        if self.program.norms:
            self._up_to_norms(past)
        elif self.measure:
            self._take_figures(past)
        else:
            self._each(past)

    def _values(self, i) -> Dict[str, Any]:
        """Update values, or do what is to be done up to norms; return all that came up."""
        values = self._begin(i)
        self._operate(values, 0, len(self.program.operations))
        return self._end(values, i)

    def _each(self, past) -> None:
        """Do so with all of a block: several at once, then the few that are left."""
        b, whole = self.b, past_whole(self.b, self.first, past)
        if self.cut:
            with b.if_then(b.icmp_signed("<", self.first, whole)):
                self._each_in_two_steps(whole)
        else:
            with loop(b, self.first, whole, LANES) as (i, _):
                self._values(i)
        if self.powers:
            b.store(long(0), self._marks(whole, LONG))
        self._rest(whole, past)
        if self.powers:
            b.call(self.few, [*b.function.args, self.number, self.first, past])

    def _rest(self, whole, past) -> None:
        """Do the few values at the end that fill no vector."""
        with self.b.if_then(self.b.icmp_signed("<", whole, past)):
            self.v = Part(self.b, self.how, self.nothing, self.b.sub(past, whole))
            self._values(whole)
            self.v = self.several

    def _each_in_two_steps(self, whole) -> None:
        """Update several at once up to a root, while those before them go on from theirs.

        A root takes so long that a processor's queues are full of what waits for it.
        """
        b, last = self.b, self.b.sub(whole, long(LANES))
        values = self._begin(self.first)
        self._operate(values, 0, self.cut)
        needed = self._needed()
        with loop(b, self.first, whole, LANES, [values[name] for name in needed]) as (i, carried):
            following = b.add(i, long(LANES))
            following = b.select(b.icmp_signed("<", following, last), following, last)
            ahead = self._begin(following)
            self._operate(ahead, 0, self.cut)
            values = {**values, **dict(zip(needed, carried))}
            self._operate(values, self.cut, len(self.program.operations))
            self._end(values, i)
            carried[:] = [ahead[name] for name in needed]

    def _needed(self):
        """Return which values are still needed after the cut."""
        program = self.program
        needed = {"w", "d", "g", *program.state, program.update, *program.norms}
        needed.update(name for _, *names in self.powers for name in names)
        needed.update(name for o in program.operations[self.cut :] for name in o.operands)
        needed.update(f"s{k}" for k in range(len(self.slots)))
        known = {f"v{number}" for number in range(self.cut)}
        known.update(("w", "d", "g"), (f"s{k}" for k in range(len(self.slots))))
        return sorted(needed & known)

    def _marks(self, i, kind):
        """Return where the bits of a block's values are, from value i on."""
        byte = self.b.lshr(self.b.sub(i, self.first), long(3))
        return self._pointer(self.b.add(self.b.add(self.scratch, long(layout.MARKS)), byte), kind)

    def _pick(self, past, picked):
        """Write down the indices of the values that are marked; return how many they are."""
        b = self.b
        with loop(b, self.first, past, 64, [long(0)]) as (i, count):
            bits = b.load(self._marks(i, LONG))

            def pick(bits):
                """Note the first; without a branch, which would be mispredicted."""
                b.store(b.add(i, b.cttz(bits, BIT(0))), b.gep(picked, [count[0]]))
                count[0] = b.add(count[0], b.zext(b.icmp_unsigned("!=", bits, long(0)), LONG))
                return b.and_(bits, b.sub(bits, long(1)))

            with loop_over_bits(b, pick(bits), count) as (bit, count_now):
                b.store(b.add(i, bit), b.gep(picked, [count_now[0]]))
                count_now[0] = b.add(count_now[0], long(1))
            count[:] = count_now
        return count[0]

    def _take_figures(self, past) -> None:
        """Update a block, and take figures while it is in the cache."""
        seen, updates = self.arrays[layout.SEEN], self.arrays[layout.UPDATES]
        arrays = {layout.REGULARIZED: seen, layout.UPDATE: updates, layout.NEW_DATA: self.x}
        arrays.update(enumerate(self.slots, layout.FIRST_SLOT))
        if self.program.update in self.program.state:
            del arrays[layout.UPDATE]  # its figures are the state's

        def measure(quantity: int, array) -> None:
            lanes = self.b.add(self.lanes, long(layout.FIGURES.itemsize * quantity))
            self.b.call(self.measure, [array, self.first, past, lanes])

        measure(layout.GRADIENT, self.d)
        self._each(past)
        for quantity, array in arrays.items():
            measure(quantity, array)

    def _up_to_norms(self, past) -> None:
        """Do what is to be done up to norms, and add up the squares of what these are wanted of."""
        b, whole = self.b, past_whole(self.b, self.first, past)
        lanes = [b.gep(self.lanes, [long(LANES * k)]) for k in range(len(self.normed))]
        sums = [self.several.load(row, long(0)) for row in lanes]
        if self.powers:  # the few come after the many: the squares when all are settled
            self._each(past)
            with loop(b, self.first, whole, LANES, sums) as (i, sums):
                values = [self.several.load(array, i) for _, array, _ in self.normed]
                sums[:] = map(self.several.add_square, values, sums)
        else:
            with loop(b, self.first, whole, LANES, sums) as (i, sums):
                numbers = self._values(i)
                normed = [numbers[name] for name in self.program.norms]
                sums[:] = map(self.several.add_square, normed, sums)
            self._rest(whole, past)
        for total, row in zip(sums, lanes):
            self.several.store(total, row, long(0))
        with loop(b, whole, past, 1) as (i, _):
            lane = b.and_(i, long(LANES - 1))
            for (_, array, _), row in zip(self.normed, lanes):
                total = self.single.add_square(
                    self.single.load(array, i), self.single.load(row, lane)
                )
                self.single.store(total, row, lane)

    def _keep(self, values: Dict[str, Any], i) -> None:
        """Keep what norms are wanted of where it is read again, and the next pass's gradient."""
        read_again = self.powers or isinstance(self.v, Part)
        for name, array, is_there in self.normed:
            if read_again and not is_there:
                self.v.store(values[name], array, i)
        if self.program.update:
            self._store(values[self.program.update], values["d"], self.d, i)

    def _begin(self, i) -> Dict[str, Any]:
        """Load values; return what the rule is given, by its names."""
        v, c = self.v, self.c
        if not isinstance(v, Few) and (self.measure or self.powers):
            # While figures are taken, or the few are updated, the memory would be idle.
            for array in (self.x, self.d, *self.slots):
                v.prefetch(array, self.b.add(i, long(self.block)))
        x, d = v.load(self.x, i), v.load(self.d, i)
        values = {"w": x, "d": d, "g": self._seen(x, d)}
        values.update((f"c{k}", value) for k, value in enumerate(c[layout.RULE :]))
        values.update((f"s{k}", v.load(slot, i)) for k, slot in enumerate(self.slots))
        return values

    def _operate(self, values: Dict[str, Any], first: int, past: int) -> None:
        """Do operations of the rule; put their results to the values."""
        v = self.v
        for number, (name, operands) in enumerate(self.program.operations[first:past], first):
            given = [values[operand] for operand in operands]
            numbers = [v.number(value) for value in given]
            if name == "where":
                numbers[0] = given[0]
            values[f"v{number}"] = getattr(v, name)(*numbers)

    def _end(self, values: Dict[str, Any], i) -> Dict[str, Any]:
        """Store the new state and weights, or what norms are wanted of; return the numbers."""
        b, v = self.b, self.v
        values = {name: v.number(value) for name, value in values.items()}
        self.marks = None
        if self.powers and not isinstance(v, Few):
            self.marks = v.doubtful([(name, values[x], values[y]) for name, x, y in self.powers])
            b.store(b.bitcast(v.only_there(self.marks), WORD), self._marks(i, WORD))
        for k, (slot, name) in enumerate(zip(self.slots, self.program.state)):
            if name != f"s{k}":
                self._store(values[name], values[f"s{k}"], slot, i)
        if self.program.norms:
            self._keep(values, i)
        else:
            self._update(values, i)
        return values

    def _store(self, new, old, array, i) -> None:
        """Store what is settled; what is not is needed as it was, to be computed again."""
        new = self.b.select(self.marks, old, new) if self.marks else new
        self.v.store(new, array, i)

    def _seen(self, x, d):
        """Return what the rule sees: the gradient clipped, normalized and regularized."""
        v, c = self.v, self.c
        if self.scaled:
            d = v.multiply(c[layout.NORMALIZATION], v.scal(c[layout.CLIP], d))
        return v.axpy(c[layout.DECAY], v.caffe_sign(x) if self.l1 else x, d)

    def _update(self, values: Dict[str, Any], i) -> None:
        """Update the weights."""
        b, v = self.b, self.v
        x, d, update = (values[name] for name in ("w", "d", self.program.update))
        self._store(v.subtract(x, update), x, self.x, i)
        with b.if_then(self.writes):
            left = b.select(self.leaves_zeros, v.constant(0), update)
            self._store(left, d, self.d, i)
        if self.measure or self.note:
            v.store(values["g"], self.arrays[layout.SEEN], i)
        if self.measure:
            v.store(update, self.arrays[layout.UPDATES], i)
        if self.note:
            difference = b.fsub(update, update)
            unfit = b.fcmp_unordered("uno", difference, difference)
            unfit = b.and_(unfit, b.not_(self.marks)) if self.marks else unfit
            bits = b.bitcast(v.only_there(unfit), WORD)
            with b.if_then(b.icmp_unsigned("!=", bits, bits.type(0)), likely=False):
                self._note(b.zext(bits, LONG), i)

    def _note(self, bits, i) -> None:
        """Note values that are not finite."""
        b, seen = self.b, self.arrays[layout.SEEN]
        if isinstance(self.v, Few):
            with loop_over_bits(b, bits) as (lane, _):
                b.call(self.note, [self.chunk_row, long(1), self.v.index(lane), seen])
        else:
            b.call(self.note, [self.chunk_row, bits, i, seen])


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
