"""The hook and the drop-in solver, called back, interrupted by exceptions, and freed."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, Dict, List

import caffe
import pytest
from helpers.hosts import Make
from helpers.nets import NETS, SMALL, write_solver
from helpers.programs import run_python
from helpers.solvers import everything, native, same, same_trails, trail, weights_of, write_pair

from caffe_pysgd import UserError


@pytest.mark.parametrize("fields", [{}, {"clip_gradients": 0.1}], ids=["unclipped", "clipped"])
def test_callbacks_run_in_caffes_order_and_what_they_change_counts(
    workdir: Path, make: Make, fields: Dict[str, Any]
) -> None:
    stock, ours = write_pair(workdir, **fields)
    heard: Dict[str, List[Any]] = {}
    trails = []
    for name, build, path in (("stock", native, stock), ("ours", make, ours)):
        solver, said = build(path), heard.setdefault(name, [])

        def start(solver: Any = solver, said: Any = said) -> None:
            said.append(("start", solver.iter))

        def ready(solver: Any = solver, said: Any = said) -> None:
            gradients = [b.diff.tobytes() for bs in solver.net.params.values() for b in bs]
            said.append(("ready", solver.iter, gradients, solver.net.params["conv"][0].data.sum()))
            solver.net.params["conv"][0].diff[...] *= 0.5

        solver.add_callback(start, ready)
        solver.add_callback(
            lambda said=said: said.append("second start"),
            lambda said=said: said.append("second ready"),
        )
        trails.append(trail(solver, 4))
    assert heard["ours"] == heard["stock"]
    assert len(heard["ours"]) == 16
    same_trails(*trails)


def test_an_exception_in_a_callback_reaches_the_caller_of_step(workdir: Path, make: Make) -> None:
    solver = make(write_solver(workdir))
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


def test_an_exception_in_a_rule_reaches_the_caller_of_step(workdir: Path, make: Make) -> None:
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
    solver = make("run.yaml")
    with pytest.raises(UserError, match=r"parameter conv/0, iteration 2: RuntimeError: enough"):
        solver.step(5)
    assert solver.iter == 2


def test_several_solvers_are_alive_at_once_and_freed(workdir: Path, make: Make) -> None:
    stock, ours = write_pair(workdir, NETS["normalized"])
    adam = [write_solver(path.parent, SMALL, name="adam", type="Adam") for path in (stock, ours)]
    pairs = [(native(one), make(other)) for one, other in ((stock, ours), adam, adam)]
    for turn in range(4):
        for number, pair in enumerate(pairs):
            for solver in pair:
                caffe.set_random_seed(100 * number + turn)
                solver.step(1)
            same(weights_of(pair[0]), weights_of(pair[1]), f"of pair {number}, turn {turn}")
    net, gone = pairs[0][1].net, [weakref.ref(solver) for _, solver in pairs]
    del pairs, pair, solver
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]
    net.forward()


def test_solvers_are_freed_with_their_nets(workdir: Path, make: Make) -> None:
    path = write_solver(workdir, test_iter=[1], test_interval=2)
    for _ in range(3):
        solver = make(path)
        solver.add_callback(lambda: None, lambda: None)
        solver.step(2)
        gone = [weakref.ref(solver), weakref.ref(solver.updater)]
        net = solver.net
        del solver
        gc.collect()
        assert [reference() for reference in gone] == [None, None]
        net.forward()  # a net outlives its solver, as with pycaffe
        del net


def test_a_process_that_ends_with_living_solvers_ends_well(workdir: Path, make: Make) -> None:
    path = write_solver(workdir)
    program = (
        "import sys, caffe_pysgd\n"
        f"solvers = [caffe_pysgd.{make.__name__}(sys.argv[1]) for _ in range(2)]\n"
        "for solver in solvers: solver.step(2)\n"
        "print(solvers[1].iter)\n"
    )
    ended = run_python(program, path)
    assert (ended.returncode, ended.stdout) == (0, "2\n"), ended.stderr
