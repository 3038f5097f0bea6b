"""One pass over memory: from the gradient to the new weights, block by block.

What ``Updater`` composes of vector operations happens here to a block of 1,024 values while they
are in the cache: clip, normalize, regularize, rule, apply; and, where figures are wanted, their
sums and extremes. The rule's part is made from its program, so the source of a pass is put together
here and then compiled.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from textwrap import indent
from typing import Any, Dict, List, Sequence

import numpy as np
from numba import carray, njit, types

from caffe_pysgd.update.fused import elements, layout
from caffe_pysgd.update.fused.elements import bits_of, caffe_sign, pointer_to, scal
from caffe_pysgd.update.fused.figures import copy, finish, measure, reset
from caffe_pysgd.update.fused.powers import marks_at, settling
from caffe_pysgd.update.fused.program import Operation, Program
from caffe_pysgd.update.fused.segments import GRADIENT, UPDATE, Segment, segments
from caffe_pysgd.update.fused.squares import add_squares, clear_squares, sum_squares

# The addresses of: the table of addresses, of scalars, of chunks; first and last chunk; scratch;
# powf; figures, or 0 for none, or of sums of squares. And what to leave in the diffs.
SIGNATURE = types.void(*[types.int64] * 9)

_EXPRESSIONS = {
    "add": "{} + {}",
    "subtract": "{} - opaque({}, nothing)",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "negative": "-{}",
    "sqrt": "np.sqrt({})",
    "absolute": "abs({})",
    "sign": "sign({})",
    "caffe_sign": "caffe_sign({})",
    "maximum": "maximum({}, {})",
    "minimum": "minimum({}, {})",
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "where": "{1} if {0} else {2}",
    "axpy": "axpy({}, {}, {})",
    "multiply_add": "multiply_add({}, {}, {})",
    "scal": "scal({}, {})",
    "square": "square({})",
    "powx_2": "square({})",
    "powx_half": "root({})",
}

_LEAVES = {
    layout.LEAVES_UPDATE: "d[i] = u",
    layout.LEAVES_ZEROS: "d[i] = F(0)",
    layout.LEAVES_ANYTHING: "pass",
}


def make_pass(program: Program, l1: bool, rounds_once: bool, exact: bool, checked: bool) -> Any:
    """Return the pass of a program, to be compiled for ``SIGNATURE``.

    Args:
        l1: whether weights decay by their signs.
        rounds_once: whether axpy is a fused multiply-add.
        exact: libm's powers, not the correctly rounded ones.
        checked: whether values of the update that are not finite are counted and noted.
    """
    multiply_add = elements.fma if rounds_once else elements.multiply_and_add
    axpy = elements.axpy_of(multiply_add)

    @njit(error_model="numpy")
    def seen(clip, normalization, decay, x, d):
        """What the rule sees: the gradient clipped, normalized and regularized."""
        g = normalization * scal(clip, d)
        if l1:
            return axpy(decay, caffe_sign(x), g)
        return axpy(decay, x, g)

    namespace = {**_NAMESPACE, "axpy": axpy, "multiply_add": multiply_add, "seen": seen}
    for name, text in source(program, exact, checked).items():
        exec(text, namespace)
        if name != "run":
            namespace[name] = njit(error_model="numpy")(namespace[name])
    return namespace["run"]


def source(program: Program, exact: bool, checked: bool) -> Dict[str, str]:
    """Return the source of a pass, function by function, ``run`` at the end."""
    parts, arrays, squared = segments(program, exact)
    functions = {"in_block": _in_block(program, parts, arrays)}
    if program.norms:
        return {**functions, "run": _run_to_norms(program, arrays, squared)}
    functions["apply"] = _apply(checked)
    if len(parts) == 1:
        for leaves in _LEAVES:
            functions[f"at_once_{leaves}"] = _at_once(program, parts[0], leaves, checked)
    return {**functions, "run": _run_to_the_end(program, len(parts) == 1, arrays, checked)}


def _names(letter: str, number: int) -> str:
    return "".join(f", {letter}{k}" for k in range(number))


def _scalars(program: Program) -> List[str]:
    """Load scalars into variables: of an array, LLVM would fear that results overwrite it."""
    return [
        f"clip, normalization, decay = c[{layout.CLIP}], c[{layout.NORMALIZATION}], "
        f"c[{layout.DECAY}]",
        f"nothing = bits_of(c[{layout.NOTHING}])",
        *(f"c{number} = c[{layout.RULE + number}]" for number in range(program.scalars)),
    ]


def _element(part: Segment, first: bool) -> List[str]:
    """Return the lines that compute one value."""
    lines = ["g = seen(clip, normalization, decay, x[i], d[i])"] if first else []
    lines += [f"{name} = {array}[i]" for name, array in part.loads]
    return lines + [f"{name} = {_expression(operation)}" for name, operation in part.lines]


def _expression(operation: Operation) -> str:
    return _EXPRESSIONS[operation.name].format(*operation.operands)


def _function(head: str, *body: str) -> str:
    return f"def {head}:\n" + indent("\n".join(body), "    ") + "\n"


def _loop(*body: str) -> str:
    return "for i in range(n):\n" + indent("\n".join(body), "    ")


def _in_block(program: Program, parts: List[Segment], arrays: int) -> str:
    """From the gradient to the update value, in arrays as long as a block."""
    body = [*_scalars(program)]
    if len(parts) > 1:
        body.append("marks = marks_at(n, work)")
    for number, part in enumerate(parts):
        lines = _element(part, number == 0)
        lines += [f"{array}[i] = {name}" for name, array in part.stores]
        if part.power:
            operand, result = part.lines[-1][1].operands[0], part.lines[-1][0]
            lines.append(f"marks[i] = near_{part.power.name}({operand}, {result})")
        if lines:
            body.append(_loop(*lines))
        if part.power:
            name, operands, results = part.power
            body.append(f"settle_{name}(n, {operands}, {results}, work)")
    slots = len(program.state)
    return _function(
        f"in_block(n, c, x, d{_names('slot', slots)}{_names('a', arrays)}, work)", *body
    )


def _apply(checked: bool) -> str:
    """From the update value to the new weights."""
    count = "unfit += u - u != F(0)" if checked else "pass"
    loops = [
        f"if leaves == {leaves}:\n" + indent(_loop(f"u = {UPDATE}[i]", _LEAVES[leaves]), "    ")
        for leaves in _LEAVES
        if _LEAVES[leaves] != "pass"
    ]
    return _function(
        f"apply(n, x, d, {UPDATE}, leaves)",
        "unfit = 0",
        _loop(f"u = {UPDATE}[i]", count, "x[i] = x[i] - u"),
        *loops,
        "return unfit",
    )


def _at_once(program: Program, part: Segment, leaves: int, checked: bool) -> str:
    """From the gradient to the new weights in one loop."""
    stores = [(name, array) for name, array in part.stores if array.startswith("slot")]
    lines = [
        *_element(part, first=True),
        *(f"{array}[i] = {name}" for name, array in stores),
        f"u = {program.update}",
        *([f"{GRADIENT}[i] = g", "unfit += u - u != F(0)"] if checked else []),
        "x[i] = x[i] - opaque(u, nothing)",
        _LEAVES[leaves],
    ]
    return _function(
        f"at_once_{leaves}(n, c, x, d{_names('slot', len(program.state))}, {GRADIENT})",
        *_scalars(program),
        "unfit = 0",
        _loop(*lines),
        "return unfit",
    )


def _run_to_norms(program: Program, arrays: int, squared: Sequence[str]) -> str:
    """Add up the squares of what norms are wanted of."""
    count = len(squared)
    places = "".join(f"{array}_at, " for array in squared)
    return _run(
        program,
        arrays,
        before=[f"clear_squares({count}, lanes)"],
        block=[_call_in_block(program, arrays), f"add_squares(n, ({places}), lanes)"],
        after=[f"sum_squares({count}, lanes, figures + {8 * count} * number)"],
    )


def _run_to_the_end(program: Program, whole: bool, arrays: int, checked: bool) -> str:
    """Update; where figures are wanted, take them."""
    slots = len(program.state)
    quantities = layout.FIRST_SLOT + slots
    lanes = [f"lanes + {layout.LANES_BYTES * quantity}" for quantity in range(quantities)]
    alike = [k for k, value in enumerate(program.state) if value == program.update]
    if alike:  # the update value is the state: its figures are the same
        of_update = f"copy({lanes[layout.FIRST_SLOT + alike[0]]}, {lanes[layout.UPDATE]})"
    else:
        of_update = "pass"
    arguments = f"n, c, x, d{_names('slot', slots)}, {GRADIENT}"
    at_once = [
        f"if leaves == {leaves}:\n    unfit += at_once_{leaves}({arguments})" for leaves in _LEAVES
    ]
    note = f"note_unfit(n, start, unfit, x, {GRADIENT}, chunk)" if checked else "pass"
    block = []
    if whole:
        block.append("if figures == 0:")
        block.append(indent("\n".join([*at_once, note, "continue"]), "    "))
    block.append(_call_in_block(program, arrays))
    block.append(
        _if_figures(
            f"measure(n, d, d_at, {lanes[layout.GRADIENT]})",
            f"measure(n, {GRADIENT}, {GRADIENT}_at, {lanes[layout.REGULARIZED]})",
        )
    )
    block += [f"unfit += apply(n, x, d, {UPDATE}, leaves)", note]
    block.append(
        _if_figures(
            *([] if alike else [f"measure(n, {UPDATE}, {UPDATE}_at, {lanes[layout.UPDATE]})"]),
            f"measure(n, x, x_at, {lanes[layout.NEW_DATA]})",
            *(
                f"measure(n, slot{k}, slot{k}_at, {lanes[layout.FIRST_SLOT + k]})"
                for k in range(slots)
            ),
        )
    )
    figures = [
        f"finish({lane}, figures + {8 * layout.FIGURES} * ({quantities} * number + {q}))"
        for q, lane in enumerate(lanes)
    ]
    return _run(
        program,
        arrays,
        before=[
            "unfit = 0",
            f"chunk[{layout.UNFIT_AT}] = -1",
            _if_figures(*(f"reset({lane})" for lane in lanes)),
        ],
        block=block,
        after=[f"chunk[{layout.UNFIT}] = unfit", _if_figures(of_update, *figures)],
    )


def _call_in_block(program: Program, arrays: int) -> str:
    return f"in_block(n, c, x, d{_names('slot', len(program.state))}{_names('a', arrays)}, work)"


def _run(
    program: Program, arrays: int, before: List[str], block: List[str], after: List[str]
) -> str:
    """Go through chunks, block by block; do something before, in and after the blocks of each."""
    slots = len(program.state)
    within = [
        f"n = min({layout.BLOCK}, chunk[1] + chunk[2] - start)",
        f"x_at, d_at = at[{layout.DATA}] + 4 * start, at[{layout.DIFF}] + 4 * start",
        "x, d = carray(floats_at(x_at), (n,)), carray(floats_at(d_at), (n,))",
    ]
    for k in range(slots):
        within.append(f"slot{k}_at = at[{layout.SLOTS + k}] + 4 * start")
        within.append(f"slot{k} = carray(floats_at(slot{k}_at), (n,))")
    chunk = [
        f"chunk = carray(integers_at(chunks + {8 * layout.CHUNK_COLUMNS} * number), "
        f"({layout.CHUNK_COLUMNS},))",
        f"at = carray(integers_at(addresses + {8 * (layout.SLOTS + slots)} * chunk[0]), "
        f"({layout.SLOTS + slots},))",
        f"c = carray(floats_at(scalars + {4 * (layout.RULE + program.scalars)} * chunk[0]), "
        f"({layout.RULE + program.scalars},))",
        *before,
        f"for start in range(chunk[1], chunk[1] + chunk[2], {layout.BLOCK}):",
        indent("\n".join([*within, *block]), "    "),
        *after,
    ]
    return _function(
        "run(addresses, scalars, chunks, first, last, scratch, powf, figures, leaves)",
        f"work = (powf, scratch + {layout.MARKS}, scratch + {layout.LISTED})",
        *(f"a{k}_at = scratch + {layout.array_at(k)}" for k in range(arrays)),
        *(f"a{k} = carray(floats_at(a{k}_at), ({layout.BLOCK},))" for k in range(arrays)),
        f"lanes = scratch + {layout.array_at(arrays)}",
        "for number in range(first, last):",
        indent("\n".join(chunk), "    "),
    )


def _if_figures(*lines: str) -> str:
    return "if figures != 0:\n" + indent("\n".join(lines), "    ")


F = np.float32


@njit(error_model="numpy")
def note_unfit(n, start, unfit, x, gradient, chunk):
    """Note the first value of a chunk whose update was not finite: so is the weight now."""
    if unfit != 0 and chunk[layout.UNFIT_AT] < 0:
        for i in range(n):
            if x[i] - x[i] != F(0):
                chunk[layout.UNFIT_AT] = start + i
                chunk[layout.UNFIT_GRADIENT] = bits_of(gradient[i])
                return


_NAMESPACE: Dict[str, Any] = {
    "F": F,
    "np": np,
    "carray": carray,
    "floats_at": pointer_to(types.float32),
    "integers_at": pointer_to(types.int64),
    "bits_of": bits_of,
    "opaque": elements.opaque,
    "scal": elements.scal,
    "square": elements.square,
    "root": elements.root,
    "sign": elements.sign,
    "caffe_sign": elements.caffe_sign,
    "maximum": elements.maximum,
    "minimum": elements.minimum,
    "note_unfit": note_unfit,
    "near_powx_2": elements.near_midpoint_square,
    "near_powx_half": elements.near_midpoint_root,
    "settle_powx_2": settling(2),
    "settle_powx_half": settling(0.5),
    "marks_at": marks_at,
    "clear_squares": clear_squares,
    "add_squares": add_squares,
    "sum_squares": sum_squares,
    "copy": copy,
    "finish": finish,
    "measure": measure,
    "reset": reset,
}
