"""A program cut at its powers: what is computed in one loop, and what is kept for the next.

libm's powers come at the speed of the correctly rounded ones if a loop computes these and marks the
few that may differ, and ``powers.py`` settles those before the next loop begins. Each loop goes
over a block that is in the cache; what a later loop needs is kept in arrays as long as a block.
"""

from __future__ import annotations

from itertools import count
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from caffe_pysgd.update.fused.program import Operation, Program, Untraceable

POWERS = {"powx_2": "square", "powx_half": "root"}

# The arrays that hold what the rule sees, and in the end the update value.
GRADIENT, UPDATE = "a0", "a1"

Line = Tuple[str, Operation]  # the name of a value, and how it is computed


class Power(NamedTuple):
    """A power that has to be settled.

    Attributes:
        name: which one.
        operands, results: the arrays of what it is taken of, and of what it comes to.
    """

    name: str
    operands: str
    results: str


class Segment(NamedTuple):
    """One loop over a block; it reads before it writes.

    Attributes:
        loads: the values that it needs, and the arrays that hold them.
        lines: what it computes.
        stores: the values that it leaves, and the arrays for them.
        power: with which it ends; None for the last one.
    """

    loads: Sequence[Tuple[str, str]]
    lines: Sequence[Line]
    stores: Sequence[Tuple[str, str]]
    power: Optional[Power]


def segments(program: Program, exact: bool) -> Tuple[List[Segment], int, List[str]]:
    """Cut a program.

    Return the segments, how many arrays as long as a block they use, and which arrays hold in the
    end what norms are wanted of.

    Args:
        program: a rule's.
        exact: whether powers are libm's; the correctly rounded ones need no cut.

    Raises:
        Untraceable: a value of the state is needed after another took its place.
    """
    cuts = _cut(program, exact)
    homes, arrays = _homes(program, cuts)
    found = []
    for number, lines in enumerate(cuts):
        last = number == len(cuts) - 1
        own = [name for name, _ in lines]
        wanted = [operand for _, operation in lines for operand in operation.operands]
        stores = [(name, homes[name]) for name in own if name in homes]
        if number == 0 and "g" in homes:
            stores.append(("g", GRADIENT))
        for k, value in enumerate(program.state):
            if value != f"s{k}" and (value in own or (last and value[0] != "v")):
                stores.append((value, f"slot{k}"))
                wanted.append(value)
        if last and program.update:
            stores.append((program.update, "d" if program.norms else UPDATE))
            wanted.append(program.update)
        loads = [
            (name, homes[name])
            for name in dict.fromkeys(wanted)
            if name[0] != "c" and name not in own and (name != "g" or number > 0)
        ]
        power = None
        if not last:
            name, operation = lines[-1]
            power = Power(operation.name, homes[operation.operands[0]], homes[name])
        found.append(Segment(loads, lines, list(dict.fromkeys(stores)), power))
    return found, arrays, [homes[value] for value in program.norms]


def _cut(program: Program, exact: bool) -> List[List[Line]]:
    cuts: List[List[Line]] = [[]]
    for number, operation in enumerate(program.operations):
        cuts[-1].append((f"v{number}", operation))
        if exact and operation.name in POWERS:
            cuts.append([])
    return cuts


def _homes(program: Program, cuts: List[List[Line]]) -> Tuple[Dict[str, str], int]:
    """Return the array of each value that more than one loop needs, and how many are of a block."""
    last = len(cuts) - 1
    born = {name: number for number, cut in enumerate(cuts) for name, _ in cut}
    needed: Dict[str, int] = {}
    for number, cut in enumerate(cuts):
        for _, operation in cut:
            needed.update(dict.fromkeys(operation.operands, number))
        if number < last:  # settled after this loop, before the next
            name, operation = cut[-1]
            needed[operation.operands[0]] = needed[name] = number + 1
    needed[program.update] = last
    needed.update(dict.fromkeys(program.norms, last + 1))

    homes = {"w": "x", "g": GRADIENT, **{f"s{k}": f"slot{k}" for k in range(len(program.state))}}
    if program.norms and not needed.get("g", 0):  # which an update keeps for its figures
        del homes["g"]
    for k, value in enumerate(program.state):
        if last and value != f"s{k}" and value[0] != "v":
            raise Untraceable("its state becomes something that it did not compute")
        if value in born:
            if needed.get(f"s{k}", 0) > born[value]:
                raise Untraceable("it needs the old state after a power of the new")
            homes.setdefault(value, f"slot{k}")
    until: Dict[int, int] = {}  # for each array the last loop that needs what is in it
    for number, cut in enumerate(cuts):
        for name, _ in cut:
            if needed.get(name, 0) > number and name not in homes:
                array = next(a for a in count(1) if until.get(a, 0) <= number)
                until[array] = needed[name]
                homes[name] = f"a{array}"
    return homes, 1 + max([1, *until])
