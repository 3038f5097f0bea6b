"""Snapshots and stops that are asked for while the drop-in solver trains."""

from __future__ import annotations

from pathlib import Path
from typing import List

from helpers.solvers import snapshot_name, write_pair

from caffe_pysgd import get_solver
from caffe_pysgd.hosts.solver import Action


def test_requested_actions_are_carried_out_after_the_iteration(workdir: Path) -> None:
    _, ours = write_pair(workdir, max_iter=10)
    solver = get_solver(ours)
    requests = [Action.NONE, Action.SNAPSHOT, Action.NONE, Action.STOP]
    solver.set_action_function(lambda: requests.pop(0))
    solver.solve()
    assert solver.iter == 4
    assert sorted(path.name for path in ours.parent.glob("*.solverstate")) == [
        "solver_iter_2.solverstate", "solver_iter_4.solverstate",
    ]  # fmt: skip
    solver.set_action_function(lambda: Action.NONE)
    solver.solve()
    assert solver.iter == 10


def test_a_stop_while_testing_ends_training_before_the_next_update(workdir: Path) -> None:
    _, ours = write_pair(workdir, max_iter=10, test_iter=[3], test_interval=4)
    solver = get_solver(ours)

    def requested() -> Action:
        if solver.iter == 4:
            asked.append(solver.iter)
        # The first time is after the update, the second before the test's first batch.
        stop = len(asked) == 2 and asked.append(0) is None
        return Action.STOP if stop else Action.NONE

    asked: List[int] = []
    solver.set_action_function(requested)
    solver.solve()
    assert solver.iter == 4
    assert snapshot_name(ours, 4).exists()
