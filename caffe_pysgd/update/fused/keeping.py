"""What a pass that takes norms may keep, so that the pass after it has less to read.

As a rule is traced, the pass that takes its norms changes nothing, and the one after it does all of
the rule from the beginning. But where the norms come late, as in LAMB, the first may leave the new
state, and in the diff an array whose norm it takes, if these are all that the last needs.
"""

from __future__ import annotations

from typing import Container, Dict, Sequence, Set, Tuple

from caffe_pysgd.update.fused.program import Operation, Program


def keeping(programs: Sequence[Program]) -> Tuple[Program, ...]:
    """Return two programs that come to the same with less to read, or none.

    The first leaves the state, and its update value in the diff; to the last, that is the gradient.
    """
    if len(programs) != 2:
        return ()
    first, last = programs
    known = {f"v{number}" for number in range(len(first.operations))}
    slots = {value: f"s{k}" for k, value in enumerate(last.state) if value in known}
    state = tuple(v if v in known else f"s{k}" for k, v in enumerate(last.state))
    lost = {"g", *(f"s{k}" for k, v in enumerate(state) if v in known)}
    for kept in [value for value in first.norms if value in known and slots]:
        names = {kept: "g", **slots}
        needed = _needed(last, names)
        if not lost & needed:
            return first._replace(state=state, update=kept), _rest(last, needed, names)
    return ()


def _needed(program: Program, known: Container[str]) -> Set[str]:
    """Return all that a program needs to come to its end, where some values are known."""
    needed: Set[str] = set()
    wanted = [program.update, *program.state]
    while wanted:
        value = wanted.pop()
        if value not in known and value not in needed:
            needed.add(value)
            if value[0] == "v":
                wanted += program.operations[int(value[1:])].operands
    return needed


def _rest(program: Program, needed: Set[str], names: Dict[str, str]) -> Program:
    """Return the lines of a program that are needed, with new names for what is known."""
    lines = sorted(int(value[1:]) for value in needed if value[0] == "v")
    names = {**names, **{f"v{line}": f"v{number}" for number, line in enumerate(lines)}}
    operations = tuple(
        Operation(operation.name, tuple(names.get(o, o) for o in operation.operands))
        for operation in (program.operations[line] for line in lines)
    )
    update, *state = (names.get(value, value) for value in (program.update, *program.state))
    return Program(operations, tuple(state), update, program.scalars, ())
