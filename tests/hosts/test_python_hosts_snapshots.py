"""Snapshots of the hook and the drop-in solver: Caffe's, at the same iterations, or none."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import caffe
import h5py
import numpy as np
import pytest
from helpers.hosts import Make
from helpers.nets import RULES_OF_CAFFE, SMALL, write_solver
from helpers.programs import run_python
from helpers.solvers import (
    RULES_AND_FORMATS,
    SUFFIX,
    bits,
    everything,
    follow,
    names_beside,
    native,
    same,
    same_snapshots,
    same_trails,
    snapshot_name,
    trail,
    weights_of,
    write_pair,
)

from caffe_pysgd.stock.snapshots import read_solver_state


@pytest.mark.parametrize(("rule", "format"), RULES_AND_FORMATS)
def test_snapshots_inside_step_hold_the_true_history(
    workdir: Path, make: Make, rule: str, format: str
) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 4], **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, type=rule, snapshot=2, snapshot_format=format, **fields)
    for build, path in ((native, stock), (make, ours)):
        build(path).step(5)
    assert names_beside(ours) == names_beside(stock)
    for iteration in (2, 4):
        states = [snapshot_name(path, iteration, SUFFIX[format]) for path in (stock, ours)]
        same_snapshots(*states)


@pytest.mark.parametrize("snapshot", [0, 4, 5])
@pytest.mark.parametrize("after_train", [True, False])
def test_solve_leaves_the_snapshots_that_caffe_leaves(
    workdir: Path, make: Make, snapshot: int, after_train: bool
) -> None:
    fields = {"snapshot": snapshot, "snapshot_after_train": after_train, "max_iter": 10}
    stock, ours = write_pair(workdir, **fields, test_iter=[2], test_interval=4, display=2)
    for build, path in ((native, stock), (make, ours)):
        solver = build(path)
        solver.solve()
        assert solver.iter == 10
    assert names_beside(ours) == names_beside(stock)
    for state in sorted(ours.parent.glob("*.solverstate")):
        same_snapshots(stock.parent / state.name, state)


def test_solving_when_nothing_is_left_to_do_snapshots_as_caffe_does(
    workdir: Path, make: Make
) -> None:
    stock, ours = write_pair(workdir, max_iter=4)
    for build, path in ((native, stock), (make, ours)):
        solver = build(path)
        solver.step(4)
        solver.solve()
    assert names_beside(ours) == names_beside(stock)
    same_snapshots(snapshot_name(stock, 4), snapshot_name(ours, 4))


@pytest.mark.parametrize(("rule", "format"), RULES_AND_FORMATS)
def test_either_resumes_from_the_others_snapshot_with_the_same_bits(
    workdir: Path, make: Make, rule: str, format: str
) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 6], **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, type=rule, snapshot_format=format, **fields)
    solvers, states = follow(stock, ours, make, 4), []
    for solver, path in zip(solvers, (stock, ours)):
        solver.snapshot()
        states.append(snapshot_name(path, 4, SUFFIX[format]))
    same_snapshots(*states)
    trails = []
    for solver in solvers:
        for state in states:
            solver.restore(str(state))
            assert solver.iter == 4
            caffe.set_random_seed(11)
            trails.append(trail(solver, 5))
            solver.snapshot()
    for other in trails[1:]:
        same_trails(trails[0], other)
    same_snapshots(*(snapshot_name(path, 9, SUFFIX[format]) for path in (stock, ours)))


@pytest.mark.parametrize("fresh", [True, False], ids=["a new solver", "the same solver"])
def test_solve_resumes_from_the_file_it_is_given(workdir: Path, make: Make, fresh: bool) -> None:
    stock, ours = write_pair(workdir, max_iter=8)
    for build, path in ((native, stock), (make, ours)):
        solver = build(path)
        solver.step(5)
        solver.snapshot()
        solver.step(2)
        if fresh:
            solver = build(path)
        caffe.set_random_seed(3)
        solver.solve(str(snapshot_name(path, 5)))
        assert solver.iter == 8
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


def test_a_snapshot_with_diffs_reads_as_caffes_does(workdir: Path, make: Make) -> None:
    """The diffs of a hooked run are zeros by then; Caffe itself can still load the model."""
    _, ours = write_pair(workdir, snapshot_diff=True)
    solver = make(ours)
    solver.step(2)
    solver.snapshot()
    before = weights_of(solver)
    solver.step(1)
    solver.net.copy_from(str(ours.parent / "solver_iter_2.caffemodel"))
    same(before, weights_of(solver), "as loaded by Caffe")


def test_a_restored_state_is_a_copy_of_its_file(workdir: Path, make: Make) -> None:
    """Training on must not reach back into the numbers that were read."""
    _, ours = write_pair(workdir)
    solver = make(ours)
    solver.step(3)
    solver.snapshot()
    state = snapshot_name(ours, 3)
    content = state.read_bytes()
    solver.restore(str(state))
    solver.step(2)
    assert state.read_bytes() == content
    assert read_solver_state(state).iteration == 3


OVERWRITE = """
import os, resource, signal
import caffe_pysgd
solver = caffe_pysgd.{make}("solver.prototxt")
solver.step(2)
solver.snapshot()
print({{name: hash(open(name, "rb").read()) for name in sorted(os.listdir("."))}}, flush=True)
solver = caffe_pysgd.{make}("solver.prototxt")
caffe_pysgd.set_random_seed(5)
solver.step(2)
{obstacle}
try:
    solver.snapshot()
    print("written")
except caffe_pysgd.UserError as error:
    print(error, flush=True)
print({{name: hash(open(name, "rb").read()) for name in sorted(os.listdir("."))}})
"""


# Adam's state is twice as large as the model.
ROOM = {"no room for the model": 90_000, "no room for the state": 180_000}


def overwrite(make: Make, obstacle: str) -> subprocess.CompletedProcess:
    """Snapshot iteration 2, then, with that in the way, another solver's iteration 2."""
    return run_python(OVERWRITE.format(make=make.__name__, obstacle=obstacle))


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("failure", ROOM)
def test_a_snapshot_that_cannot_be_written_leaves_the_old_one_whole(
    workdir: Path, make: Make, failure: str, format: str
) -> None:
    wide = SMALL.replace("num_output: 11", "num_output: 200")
    write_solver(workdir, wide, type="Adam", snapshot_format=format)
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM[failure]}, {ROOM[failure]}))"
    ended = overwrite(make, limit)
    assert ended.returncode == 0, ended.stderr
    before, said, after = ended.stdout.splitlines()
    kind = "caffemodel" if "model" in failure else "solverstate"
    assert said == f"{workdir}/solver_iter_2.{kind}{SUFFIX[format]}: cannot be written: " + (
        "File too large"
    )
    old, left = eval(before), eval(after)  # what the program above printed
    assert list(left) == list(old)
    whole = f"solver_iter_2.solverstate{SUFFIX[format]}"
    assert left[whole] == old[whole]
    assert (left == old) == (kind == "caffemodel")


def test_a_process_that_is_killed_while_writing_leaves_the_old_snapshot_whole(
    workdir: Path, make: Make
) -> None:
    """Killed when all is written and nothing is in its place yet: the latest moment."""
    write_solver(workdir)
    ended = overwrite(make, "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.returncode == -signal.SIGKILL
    before = eval(ended.stdout)  # what the program above printed
    left = {path.name for path in workdir.iterdir()}
    assert set(before) < left
    expected = make("solver.prototxt")
    expected.step(2)
    fresh = make("solver.prototxt")
    fresh.restore("solver_iter_2.solverstate")
    assert everything(fresh) == everything(expected)


def test_a_history_of_another_shape_is_taken_by_its_values(workdir: Path, make: Make) -> None:
    """Caffe would abort over it, so it is not given to Caffe as it is."""
    path = write_solver(workdir, snapshot_format="HDF5")
    first = make(path)
    first.step(2)
    first.snapshot()
    state = snapshot_name(path, 2, ".h5")
    with h5py.File(state, "r+") as file:
        for number, values in {name: np.array(h) for name, h in file["history"].items()}.items():
            del file["history"][number]
            file["history"][number] = values.ravel()
    second = make(path)
    second.restore(str(state))
    for ours, theirs in zip(first.updater.states, second.updater.states):
        assert bits(ours) == bits(theirs)
    second.step(1)
    assert second.iter == 3
