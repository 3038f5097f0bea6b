"""The few values of a block that are left by the vector loop, computed in vectors, too."""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

from typing import Any

from llvmlite import ir

from caffe_pysgd.update.fused.flow import FLOAT, INT, LONG, WORD, long, loop_over_bits
from caffe_pysgd.update.fused.vectors import Values
from caffe_pysgd.update.statistics import LANES


class Few(Values):
    """At most sixteen values that lie here and there; their powers are libm's.

    Args:
        b, how, nothing: see ``Values``.
        powf: libm's function.
        buffers: two, as long as a vector.
        picked: the list of all indices.

    Attributes:
        first: from where on in that list.
        there: which of sixteen there are.
    """

    first: Any = None

    def __init__(self, b: Any, how: Any, nothing: Any, powf: Any, buffers: Any, picked: Any):
        super().__init__(b, LANES, how, nothing)
        self._powf, self._buffers, self._picked = powf, buffers, picked

    def begin(self, first, count):
        """Go on with those that are picked from here on; return their indices.

        Where they are less than sixteen, the last one fills up.
        """
        b, last = self.b, self.b.sub(count, long(1))
        lanes = [b.add(first, long(lane)) for lane in range(LANES)]
        there = [b.icmp_signed("<", lane, count) for lane in lanes]
        self.first, self.there = first, self._vector(there)
        places = [b.select(is_there, lane, last) for is_there, lane in zip(there, lanes)]
        return [b.load(b.gep(self._picked, [place])) for place in places]

    def index(self, lane):
        """Return the index of one of them."""
        return self.b.load(self.b.gep(self._picked, [self.b.add(self.first, lane)]))

    def _vector(self, values):
        vector = ir.Constant(self.of(values[0].type), ir.Undefined)
        for lane, value in enumerate(values):
            vector = self.b.insert_element(vector, value, ir.Constant(INT, lane))
        return vector

    def load(self, array, index):
        return self._vector([self.b.load(self.b.gep(array, [one])) for one in index])

    def store(self, value, array, index):
        # From the last to the first: what fills up has not libm's powers, and is overwritten.
        for lane in reversed(range(LANES)):
            one = self.b.extract_element(value, ir.Constant(INT, lane))
            self.b.store(one, self.b.gep(array, [index[lane]]))

    def powx_2(self, x):
        return self._power(x, 2, "powx_2")

    def powx_half(self, x):
        return self._power(x, 0.5, "powx_half")

    def _power(self, x, exponent, name):
        rounded = getattr(super(), name)(x)
        b = self.b
        doubtful = self.only_there(self.doubtful([(name, x, rounded)]))
        marks, before = b.bitcast(doubtful, WORD), b.block
        with b.if_then(b.icmp_unsigned("!=", marks, marks.type(0))):
            for value, buffer in zip((x, rounded), self._buffers):
                super().store(value, buffer, long(0))
            with loop_over_bits(b, b.zext(marks, LONG)) as (lane, _):
                one, power = (b.gep(buffer, [lane]) for buffer in self._buffers)
                asked = b.call(self._powf, [b.load(one), ir.Constant(FLOAT, exponent)])
                b.store(asked, power)
            libms, after = super().load(self._buffers[1], long(0)), b.block
        result = b.phi(self.of(FLOAT))
        result.add_incoming(rounded, before)
        result.add_incoming(libms, after)
        return result
