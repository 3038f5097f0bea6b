"""Diagnose: run a hand-written update in lockstep with the native solver, and say what differs."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.hosts.backend import resolve_source
from caffe_pysgd.proof.diagnose import faults
from caffe_pysgd.proof.diagnose.evidence import Evidence
from caffe_pysgd.proof.diagnose.faults import Fault
from caffe_pysgd.proof.diagnose.findings import findings, largest_update, not_updated
from caffe_pysgd.proof.diagnose.hand_written import Loop
from caffe_pysgd.proof.diagnose.lockstep import Lockstep, Progress, Trail, distance, same_bits
from caffe_pysgd.proof.diagnose.needs import unmet
from caffe_pysgd.proof.diagnose.search import Explanation, Search
from caffe_pysgd.proof.diagnose.steps import UserStep, make_step
from caffe_pysgd.proof.diagnose.verdict import Drift, Named, Verdict, far
from caffe_pysgd.proof.verify import seeded
from caffe_pysgd.run.run import Run
from caffe_pysgd.update.bits import compare


def diagnose(
    solver: Any, step: UserStep, iterations: int = 5, progress: Progress = lambda: None
) -> Verdict:
    """Say why a hand-written update does not match the native solver's::

        def step(solver):
            solver.net.clear_param_diffs()
            solver.net.forward()
            solver.net.backward()
            for blobs in solver.net.params.values():
                for blob in blobs:
                    blob.data[...] -= 0.01 * blob.diff

        print(caffe_pysgd.diagnose("solver.prototxt", step=step))

    Args:
        solver: the solver file, a YAML, or a ``SolverParameter``; the loop gets solvers of its
            own.
        step: does one iteration, update included, on the solver that it is given. It is called as
            ``step(solver)``, as ``step(net)`` if its argument has that name, and with the number of
            the iteration as well if it takes two. A generator function does an iteration up to each
            ``yield``.
        iterations: how many to compare.
        progress: is called after each iteration of each of the three runs.

    Raises:
        UserError: the step raised, the native solver cannot do what the YAML says, or training
            cannot start.
    """
    if iterations < 1:
        raise SettingError("iterations", iterations, "1 or more")
    run = _resolve(solver)
    lockstep = Lockstep(run, iterations, progress)
    return judge(lockstep, lockstep.native(), step)


def _resolve(solver: Any) -> Run:
    if hasattr(solver, "apply_update"):
        raise UserError(
            "diagnose: got a solver, whose settings pycaffe does not show; give its solver file"
        )
    run = solver if isinstance(solver, Run) else resolve_source(solver)
    run.refuse_beyond_caffe()
    if not run.parameters:
        raise UserError(f"{run.where}: only this program can build it, and no copy of it can")
    return seeded(run)


def judge(lockstep: Lockstep, native: Trail, step: UserStep) -> Verdict:
    """Follow a hand-written loop and compare it with what the native solver did.

    Raises:
        UserError: the step raised.
    """
    user = lockstep.follow(make_step(step))
    if not user:
        raise UserError("the step's weights are not finite after its first iteration")
    case = _Case(lockstep, user, native[: len(user)])
    return case.judged() if case.differ else case.verdict("exact")


class _Case:
    """A loop that is judged."""

    def __init__(self, lockstep: Lockstep, user: Trail, native: Trail) -> None:
        self._run, self._lockstep = lockstep.run, lockstep
        self._user, self._native = user, native
        self._named: List[Named] = []
        self._notes: List[str] = []
        ends = list(zip(user, native))
        self.differ = sum(not same_bits(one.after, other.after) for one, other in ends)
        self._drift = Drift(
            tuple(distance(one.after, other.after) for one, other in ends),
            distance(native[-1].after, native[0].start),
        )
        if len(user) < lockstep.iterations:
            self._notes.append(
                f"The weights were not finite after iteration {len(user)}; what is before that "
                "was compared."
            )

    def judged(self) -> Verdict:
        """Say what is different."""
        run, user = self._run, self._user
        right = self._lockstep.gradients_along(user)
        seen = findings(user, self._native, right, self._lockstep.layers, run.h.iter_size)
        self._named += [Named((one.fault,), one.evidence) for one in seen]
        if largest_update(user) == 0:
            evidence = "the weights have the same bits after every iteration"
            self._named.append(Named((faults.NOTHING_UPDATED,), evidence))
            return self.verdict("fault")
        if not all(one.gradients for one in user):
            return self.verdict("fault")
        still = not_updated(run.parameters, user, self._native)
        if still:
            evidence = f"{', '.join(still)} never change{'s' if len(still) == 1 else ''}"
            self._named.append(Named((faults.ONLY_SOME,), evidence))
        search = self._search(still)
        if search.residual(search.caffes).agrees:
            return self.verdict("fault" if self._named else "rounding", search, search.caffes)
        found = search.explanations()
        if not found:
            self._notes += search.hints()
            return self.verdict("unexplained", search)
        self._named += _grouped(search, found)
        for one in search.in_place_of(found):
            both = " and ".join(fault.title for fault in one.faults)
            self._notes.append(f"The same comes of two faults together: {both}.")
        return self.verdict("fault", search, found[0])

    def _search(self, skipped: Sequence[str] = ()) -> Search:
        parameters, user = self._run.parameters, self._user
        sample = Evidence(parameters, user, skipped, sampled=True)
        caffes = Loop(self._run.solver.type, self._run.h.regularization_type)
        return Search(caffes, self._run.h, sample, Evidence(parameters, user, skipped))

    def verdict(
        self, kind: str, search: Optional[Search] = None, found: Optional[Explanation] = None
    ) -> Verdict:
        """Put the verdict together; ``found`` explains what was seen."""
        if kind == "exact" and all(one.gradients for one in self._user):
            search = self._search()
            found = search.caffes
        last = list(zip(self._user[-1].after, self._native[-1].after))
        return Verdict(
            kind,
            self._named,
            len(self._user),
            sum(compare("", a, b).differ for a, b in last),
            sum(a.size for a, _ in last),
            search.residual(search.caffes) if search else None,
            search.residual(found) if search and found else None,
            self._drift,
            self._alike(search, found) if search and found else [],
            self._notes,
        )

    def _alike(self, search: Search, found: Explanation) -> List[Tuple[Fault, str]]:
        """Return what would make no difference here, and what it takes."""
        named = {fault for one in self._named for fault in one.faults}
        faults_alike = [fault for fault in search.without_effect(found) if fault not in named]
        return unmet(faults_alike, self._run.h, search.sample)


def _grouped(search: Search, found: Sequence[Explanation]) -> List[Named]:
    """Return the faults of the first explanation, each with those that could be in its place."""
    first, all_of_them = found[0].faults, {frozenset(one.faults) for one in found}
    named = []
    for fault in first:
        rest = frozenset(first) - {fault}
        instead = [
            other
            for one in found
            for other in one.faults
            if other not in first and rest | {other} in all_of_them
        ]
        evidence = f"a model without it is off by {far(search.without(found[0], fault))}"
        named.append(Named((fault, *dict.fromkeys(instead)), evidence))
    return named
