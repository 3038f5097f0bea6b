"""The hook: a genuine pycaffe solver with Python's update, to the last bit."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, Dict, List

import caffe
import numpy as np
import pytest
from google.protobuf import text_format
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, write_solver
from helpers.runs import assert_same_bits
from helpers.solvers import (
    RULES_AND_FORMATS,
    SUFFIX,
    everything,
    follow,
    native,
    same,
    same_snapshots,
    same_trails,
    snapshot_name,
    trail,
    weights_of,
    write_pair,
    write_staged_pair,
)

from caffe_pysgd import UserError, take_over
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import read_solver_state
from caffe_pysgd.update.bits import compare

EVERYTHING = {"weight_decay": 0.02, "clip_gradients": 2, "iter_size": 2}


@pytest.mark.parametrize("net", ["normalized", "shared"])
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_every_rule_gives_the_native_bits_after_every_iteration(
    workdir: Path, rule: str, net: str
) -> None:
    fields = {**EVERYTHING, **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, NETS[net], type=rule, **fields)
    for solver in follow(stock, ours, take_over, 8):
        solver.snapshot()
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_stages_and_two_test_nets_give_the_native_bits(workdir: Path, rule: str) -> None:
    stock, ours = write_staged_pair(workdir, type=rule, **RULES_OF_CAFFE[rule])
    first, second = follow(stock, ours, take_over, 7)
    assert len(second.test_nets) == len(first.test_nets) == 2
    for theirs, here in zip(first.test_nets, second.test_nets):
        assert list(theirs.params) == list(here.params)
        for layer, blobs in theirs.params.items():
            for one, other in zip(blobs, here.params[layer]):
                assert_same_bits([compare(layer, one.data.ravel(), other.data.ravel())])


@pytest.mark.parametrize(
    "fields",
    [
        {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [2, 3, 7]},
        {"lr_policy": "inv", "gamma": 0.1, "power": 0.75, "momentum": 0},
        {"regularization_type": "L1", "weight_decay": 0.01, "clip_gradients": 0.2},
        {"debug_info": True, "display": 4},
        {"snapshot_format": "HDF5", "snapshot": 3},
    ],
    ids=["multistep", "inv", "L1 and clip", "debug_info", "HDF5"],
)
def test_options_give_the_native_bits(workdir: Path, fields: Dict[str, Any]) -> None:
    stock, ours = write_pair(workdir, SMALL, **fields)
    follow(stock, ours, take_over, 9)


def test_it_is_a_genuine_pycaffe_solver(workdir: Path) -> None:
    path = write_solver(workdir, test_iter=[1], test_interval=5)
    solver = take_over(str(path))
    assert isinstance(solver, caffe.SGDSolver)
    assert isinstance(solver.net, caffe.Net)
    assert isinstance(solver.test_nets[0], caffe.Net)
    assert (solver.iter, solver.lr, solver.param.max_iter) == (0, np.float32(0.01), 20)
    solver.step(2)
    assert solver.iter == 2
    other = caffe.Net(str(workdir / "solver_net.prototxt"), caffe.TRAIN)
    solver.share_weights(other)
    assert other.params["conv"][0].data.tobytes() == solver.net.params["conv"][0].data.tobytes()


def test_path_yaml_and_message_are_the_same_run(workdir: Path) -> None:
    stock, ours = write_pair(workdir, SMALL)
    expected = trail(native(stock), 4)
    message = text_format.Parse(ours.read_text(), pycaffe.messages().SolverParameter())
    before = message.SerializeToString()
    yaml = workdir / "run.yaml"
    yaml.write_text("solver: ours/solver.prototxt\n")
    for source in (ours, str(ours), yaml, str(yaml), message):
        same_trails(expected, trail(take_over(source), 4))
    assert message.SerializeToString() == before


def test_what_the_yaml_overrides_is_trained_with(workdir: Path) -> None:
    stock, _ = write_pair(workdir, SMALL)
    text = stock.read_text().replace("momentum: 0.9", "momentum: 0.5")
    stock.write_text(text + 'type: "Nesterov"\n')
    yaml = workdir / "run.yaml"
    yaml.write_text("solver: ours/solver.prototxt\nupdate: {rule: nesterov, momentum: 0.5}\n")
    same_trails(trail(native(stock), 5), trail(take_over(yaml), 5))


def test_a_user_who_sets_base_lr_in_param_gets_that_rate(workdir: Path) -> None:
    stock, ours = write_pair(workdir, SMALL)
    trails = []
    for make, path in ((native, stock), (take_over, ours)):
        solver = make(path)
        first = trail(solver, 3)
        solver.param.base_lr = 0.002
        trails.append(first + trail(solver, 3))
        assert solver.lr == np.float32(0.002)
    same_trails(*trails)


# -- snapshots ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "format"), RULES_AND_FORMATS)
def test_snapshots_inside_step_hold_the_true_history(workdir: Path, rule: str, format: str) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 4], **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, type=rule, snapshot=2, snapshot_format=format, **fields)
    for make, path in ((native, stock), (take_over, ours)):
        make(path).step(5)
    assert names_in(ours) == names_in(stock)
    for iteration in (2, 4):
        states = [snapshot_name(path, iteration, SUFFIX[format]) for path in (stock, ours)]
        same_snapshots(*states)


def names_in(solver: Path) -> List[str]:
    """Return what lies beside a solver file: no snapshot more or less than Caffe's."""
    return sorted(path.name for path in solver.parent.iterdir())


@pytest.mark.parametrize("snapshot", [0, 4, 5])
@pytest.mark.parametrize("after_train", [True, False])
def test_solve_leaves_the_snapshots_that_caffe_leaves(
    workdir: Path, snapshot: int, after_train: bool
) -> None:
    fields = {"snapshot": snapshot, "snapshot_after_train": after_train, "max_iter": 10}
    stock, ours = write_pair(workdir, **fields, test_iter=[2], test_interval=4, display=2)
    for make, path in ((native, stock), (take_over, ours)):
        solver = make(path)
        solver.solve()
        assert solver.iter == 10
    assert names_in(ours) == names_in(stock)
    for state in sorted(ours.parent.glob("*.solverstate")):
        same_snapshots(stock.parent / state.name, state)


def test_solving_when_nothing_is_left_to_do_snapshots_as_caffe_does(workdir: Path) -> None:
    stock, ours = write_pair(workdir, max_iter=4)
    for make, path in ((native, stock), (take_over, ours)):
        solver = make(path)
        solver.step(4)
        solver.solve()
    assert names_in(ours) == names_in(stock)
    same_snapshots(snapshot_name(stock, 4), snapshot_name(ours, 4))


@pytest.mark.parametrize(("rule", "format"), RULES_AND_FORMATS)
def test_either_resumes_from_the_others_snapshot_with_the_same_bits(
    workdir: Path, rule: str, format: str
) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 6], **RULES_OF_CAFFE[rule]}
    stock, ours = write_pair(workdir, type=rule, snapshot_format=format, **fields)
    solvers, states = [native(stock)], []
    trail(solvers[0], 4)
    solvers.append(take_over(ours))  # its constructor seeds the random numbers anew
    trail(solvers[1], 4)
    for solver, path in zip(solvers, (stock, ours)):
        solver.snapshot()
        states.append(str(snapshot_name(path, 4, SUFFIX[format])))
    trails = []
    for solver in solvers:
        for state in states:
            solver.restore(state)
            assert solver.iter == 4
            caffe.set_random_seed(11)
            trails.append(trail(solver, 5))
            solver.snapshot()
    for other in trails[1:]:
        same_trails(trails[0], other)
    same_snapshots(*(snapshot_name(path, 9, SUFFIX[format]) for path in (stock, ours)))


def test_solve_resumes_from_the_file_it_is_given(workdir: Path) -> None:
    stock, ours = write_pair(workdir, max_iter=8)
    for make, path in ((native, stock), (take_over, ours)):
        solver = make(path)
        solver.step(5)
        solver.snapshot()
        fresh = make(path)
        caffe.set_random_seed(3)
        fresh.solve(str(snapshot_name(path, 5)))
        assert fresh.iter == 8
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


def test_a_snapshot_with_diffs_reads_as_caffes_does(workdir: Path) -> None:
    """The diffs of a hooked run are zeros by then; Caffe itself can still load the model."""
    _, ours = write_pair(workdir, snapshot_diff=True)
    solver = take_over(ours)
    solver.step(2)
    solver.snapshot()
    before = weights_of(solver)
    solver.step(1)
    solver.net.copy_from(str(ours.parent / "solver_iter_2.caffemodel"))
    same(before, weights_of(solver), "as loaded by Caffe")


def test_a_snapshot_that_does_not_belong_here_changes_nothing(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    other, _ = write_pair(workdir / "stock", NETS["normalized"])
    adam = write_solver(workdir, name="adam", type="Adam")
    for path in (other, adam):
        solver = native(path)
        solver.step(3)
        solver.snapshot()
    solver = take_over(ours)
    solver.step(2)
    before = everything(solver)
    for state, said in (
        (snapshot_name(other, 3), "is a snapshot of another net"),
        (snapshot_name(adam, 3), "another solver type"),
        (workdir / "adam_iter_3.caffemodel", "is not a whole Caffe solver state"),
        (workdir / "no.solverstate", "cannot be read: No such file"),
    ):
        with pytest.raises(UserError, match=said):
            solver.restore(str(state))
        assert everything(solver) == before
    expected = native(stock)
    expected.step(2)
    for one in (expected, solver):
        caffe.set_random_seed(9)
        one.step(3)
    same(weights_of(expected), weights_of(solver), "after what was refused")


# -- callbacks, exceptions, lifetimes -------------------------------------------------------------


def test_callbacks_of_the_user_run_and_see_the_gradients(workdir: Path) -> None:
    stock, ours = write_pair(workdir, clip_gradients=0.1)
    seen: Dict[str, List[Any]] = {}
    for name, make, path in (("stock", native, stock), ("ours", take_over, ours)):
        solver = make(path)
        heard = seen[name] = []

        def start(heard: Any = heard, solver: Any = solver) -> None:
            heard.append(("start", solver.iter))

        def ready(heard: Any = heard, solver: Any = solver) -> None:
            gradients = [b.diff.tobytes() for bs in solver.net.params.values() for b in bs]
            heard.append(("ready", solver.iter, gradients, solver.net.params["conv"][0].data.sum()))

        solver.add_callback(start, ready)
        solver.add_callback(lambda heard=heard: heard.append("second"), lambda: None)
        solver.step(3)
    assert seen["ours"] == seen["stock"]
    assert len(seen["ours"]) == 9


def test_what_a_callback_changes_in_the_gradients_counts(workdir: Path) -> None:
    stock, ours = write_pair(workdir)
    trails = []
    for make, path in ((native, stock), (take_over, ours)):
        solver = make(path)

        def halve(solver: Any = solver) -> None:
            solver.net.params["conv"][0].diff[...] *= 0.5

        solver.add_callback(lambda: None, halve)
        trails.append(trail(solver, 4))
    same_trails(*trails)


def test_an_exception_in_a_callback_reaches_the_caller_of_step(workdir: Path) -> None:
    solver = take_over(write_solver(workdir))
    solver.step(1)
    failing = [True]

    def fail() -> None:
        if failing:
            raise KeyError("mine")

    solver.add_callback(lambda: None, fail)
    before = everything(solver)
    with pytest.raises(KeyError, match="mine"):
        solver.step(3)
    assert everything(solver) == before
    failing.clear()
    solver.step(2)
    assert solver.iter == 3


def test_an_exception_in_a_rule_reaches_the_caller_of_step(workdir: Path) -> None:
    write_solver(workdir)
    (workdir / "failing_rule.py").write_text(
        "import caffe_pysgd\n"
        "class Failing(caffe_pysgd.UpdateRule):\n"
        "    def update(self, p):\n"
        "        if p.iteration == 2: raise RuntimeError('enough')\n"
        "        return p.rate * p.gradient\n"
    )
    (workdir / "run.yaml").write_text(
        "solver: solver.prototxt\nupdate: {rule: 'failing_rule:Failing', momentum: 0}\n"
    )
    solver = take_over("run.yaml")
    with pytest.raises(UserError, match=r"parameter conv/0, iteration 2: RuntimeError: enough"):
        solver.step(5)
    assert solver.iter == 2


def test_several_solvers_are_alive_at_once(workdir: Path) -> None:
    stock, ours = write_pair(workdir, NETS["normalized"])
    adam = [write_solver(path.parent, SMALL, name="adam", type="Adam") for path in (stock, ours)]
    pairs = [
        (native(stock), take_over(ours)),
        (native(adam[0]), take_over(adam[1])),
        (native(adam[0]), take_over(adam[1])),
    ]
    for turn in range(4):
        for number, pair in enumerate(pairs):
            for solver in pair:
                caffe.set_random_seed(100 * number + turn)
                solver.step(1)
            same(weights_of(pair[0]), weights_of(pair[1]), f"of pair {number}, turn {turn}")


def test_solvers_are_freed_with_their_nets(workdir: Path) -> None:
    path = write_solver(workdir, test_iter=[1], test_interval=2)
    for _ in range(3):
        solver = take_over(path)
        solver.add_callback(lambda: None, lambda: None)
        solver.step(2)
        gone = [weakref.ref(solver), weakref.ref(solver.updater)]
        net = solver.net
        del solver
        gc.collect()
        assert [reference() for reference in gone] == [None, None]
        net.forward()  # a net outlives its solver, as with pycaffe
        del net


def test_a_process_that_ends_with_living_solvers_ends_well(workdir: Path) -> None:
    path = write_solver(workdir)
    program = (
        "import sys, caffe_pysgd\n"
        "solvers = [caffe_pysgd.take_over(sys.argv[1]) for _ in range(2)]\n"
        "for solver in solvers: solver.step(2)\n"
        "print(solvers[1].iter)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "2\n"), ended.stderr


def test_mistakes_are_user_errors_before_any_solver_is_there(workdir: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        take_over("no.prototxt")
    path = write_solver(workdir, type="AdaGrad", momentum=0.9)
    with pytest.raises(UserError, match="momentum"):
        take_over(path)
    path = write_solver(workdir, snapshot=5, snapshot_prefix=workdir / "no" / "folder")
    with pytest.raises(UserError, match=r"snapshot.prefix"):
        take_over(path)


def test_verify_finds_no_difference_between_stock_and_the_hook(cli: Any, workdir: Path) -> None:
    write_staged_pair(workdir, display=2)
    verified = cli("verify", "ours/solver.prototxt", "--iterations=7", "--host=hook")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.splitlines()[-1].startswith("verify: 0 of ")


def test_a_restored_state_is_a_copy_of_its_file(workdir: Path) -> None:
    """Training on must not reach back into the numbers that were read."""
    _, ours = write_pair(workdir)
    solver = take_over(ours)
    solver.step(3)
    solver.snapshot()
    state = snapshot_name(ours, 3)
    content = state.read_bytes()
    solver.restore(str(state))
    solver.step(2)
    assert state.read_bytes() == content
    assert read_solver_state(state).iteration == 3
