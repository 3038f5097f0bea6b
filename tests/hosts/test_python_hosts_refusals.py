"""The hook and the drop-in solver refuse a snapshot that is not theirs, and change nothing."""

from __future__ import annotations

from pathlib import Path

import caffe
import pytest
from helpers.failures import refusal
from helpers.hosts import Make
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, write_solver
from helpers.solvers import (
    SUFFIX,
    everything,
    native,
    same,
    snapshot_after,
    snapshot_name,
    weights_of,
    write_pair,
)

from caffe_pysgd import UserError

# By the type that resumes; what Caffe itself accepts in silence (BVLC/caffe issue 5581).
WRONG_TYPES = {
    "SGD": ["AdaGrad", "RMSProp", "Adam"],
    "Nesterov": ["RMSProp", "AdaDelta"],
    "AdaGrad": ["SGD", "Adam"],
    "RMSProp": ["Nesterov"],
    "AdaDelta": ["Adam", "SGD"],
    "Adam": ["AdaDelta", "SGD"],
}


@pytest.mark.parametrize("resumed", WRONG_TYPES)
def test_the_state_of_another_solver_type_is_refused_and_changes_nothing(
    workdir: Path, make: Make, resumed: str
) -> None:
    here = make(write_solver(workdir, type=resumed, **RULES_OF_CAFFE[resumed]))
    here.step(2)
    before = everything(here)
    for taken in WRONG_TYPES[resumed]:
        source = write_solver(workdir, name="taken", type=taken, **RULES_OF_CAFFE[taken])
        state = snapshot_after(source, 3)
        said = refusal(here.restore, str(state))
        assert "another solver type" in said
        assert said.startswith(f"{state}: ")
        assert everything(here) == before


def test_a_snapshot_of_ours_names_the_rule_that_it_is_of(workdir: Path, make: Make) -> None:
    """So that even those are told apart whose histories look alike."""
    for taken, resumed in (("SGD", "Nesterov"), ("AdaGrad", "RMSProp")):
        source = write_solver(workdir, name="taken", type=taken, **RULES_OF_CAFFE[taken])
        state = snapshot_after(source, 3, make)
        here = make(write_solver(workdir, type=resumed, **RULES_OF_CAFFE[resumed]))
        before = everything(here)
        with pytest.raises(UserError, match=f"state of rule '{taken.lower()}'"):
            here.restore(str(state))
        assert everything(here) == before


@pytest.mark.parametrize("format", SUFFIX)
def test_what_is_no_snapshot_of_this_net_is_refused_and_changes_nothing(
    workdir: Path, make: Make, format: str
) -> None:
    stock, ours = write_pair(workdir, snapshot_format=format)
    wider = SMALL.replace("num_output: 11", "num_output: 12")
    end = SUFFIX[format]
    other, wide, gone = (
        snapshot_after(write_solver(workdir, net, name, snapshot_format=format), 3, suffix=end)
        for name, net in (("other", NETS["normalized"]), ("wider", wider), ("gone", SMALL))
    )
    (workdir / f"gone_iter_3.caffemodel{end}").unlink()
    half = workdir / f"half.solverstate{end}"
    half.write_bytes(wide.read_bytes()[: wide.stat().st_size // 2])
    solver = make(ours)
    solver.step(2)
    before = everything(solver)
    for state, said in (
        (other, "is a snapshot of another net: it has no parameter hidden/0"),
        (wide, "is a snapshot of another net: hidden/0 has "),
        (gone, "its model .* is not there"),
        (half, "is not a complete Caffe solver state"),
        # BVLC/caffe issue 4181
        (workdir / f"other_iter_3.caffemodel{end}", "is not a complete Caffe solver state"),
        (workdir / "no.solverstate", "cannot be read: No such file or directory"),
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


POSITIVE = """
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 4 dim: 40 } shape { dim: 4 dim: 1 }
    data_filler { type: "uniform" min: 0.5 max: 1 } data_filler { type: "constant" value: -9 } } }
layer { name: "out" type: "InnerProduct" bottom: "data" top: "out"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""


def test_a_history_whose_signs_are_equal_by_chance_is_not_refused(
    workdir: Path, make: Make
) -> None:
    """Positive inputs, one output, all errors of one sign: so has its true history."""
    stock, ours = write_pair(workdir, POSITIVE, base_lr=0.0001)
    first = native(stock)
    first.step(3)
    first.snapshot()
    solver = make(ours)
    solver.restore(str(snapshot_name(stock, 3)))
    assert solver.updater.states
    for state in solver.updater.states:
        assert all((values > 0).all() for values in state.values())
    for one in (first, solver):
        caffe.set_random_seed(1)
        one.step(2)
    same(weights_of(first), weights_of(solver), "after resuming")
