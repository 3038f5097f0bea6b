"""What is recorded without being asked for, what the YAML asks for, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from helpers.failures import refusal
from helpers.hosts import PYTHON_HOSTS
from helpers.nets import write_solver
from helpers.recorded_runs import TESTED, dump, rows, write_recorded

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.store import Store


@pytest.mark.parametrize("command", ["train", "solve"])
def test_without_an_audit_the_loss_the_manifest_and_hashes_are_left(
    cli: Callable, workdir: Path, command: str
) -> None:
    write_solver(workdir, max_iter=10, **TESTED)
    done = cli(command, "solver.prototxt", GLOG_logtostderr="1")
    assert done.returncode == 0, done.stderr
    file = workdir / "runs/solver/audit.sqlite"
    assert check_ledger(file).intact
    counted = {table: len(found) for table, found in dump(file, ("figures", "updates")).items()}
    assert counted == {"figures": 0, "updates": 0}
    found = rows(file, "SELECT count(*), count(loss), count(weights_hash) FROM iterations")
    assert found == [(10, 10, 3)]
    assert [i for (i,) in rows(file, "SELECT DISTINCT iteration FROM weights")] == [3, 7, 9]
    assert rows(file, "SELECT count(*) FROM tests") == [(6,)]
    with Store(file) as store:
        assert 'name: "small"' in store.manifest()["net"]


def test_a_library_user_records_only_if_the_yaml_asks(workdir: Path) -> None:
    before = {path.name for path in workdir.iterdir()}
    for make in PYTHON_HOSTS.values():
        write_solver(workdir)
        solver = make("solver.prototxt")
        solver.step(2)
        assert not solver.updater.observers
    assert {p.name for p in workdir.iterdir()} - before == {
        "solver.prototxt",
        "solver_net.prototxt",
    }


def test_audit_alone_and_true_ask_for_one_and_false_for_none(workdir: Path) -> None:
    for audit, wanted in (("", True), ("true", True), ("false", False)):
        solver = caffe_pysgd.get_solver(write_recorded(workdir, audit))
        assert bool(solver.updater.observers) == wanted


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ("{every: 0}", "audit.every: got 0; expected greater than or equal to 1"),
        ("{evry: 1}", "audit.evry: unknown key; did you mean 'every'?"),
        ("{on_nonfinite: stop}", "audit.on_nonfinite: got 'stop'; expected 'raise', 'skip' or"),
        ("{probes: [{param: conv/0, at: 1}]}", "audit.probes[0].at: unknown key"),
        ("{probes: [{param: con/0, index: [0]}]}", "got 'con/0'; expected one of conv/0, "),
        ("{probes: [{param: conv/0, index: [5, 0, 0, 0]}]}", "within its shape [5, 2, 3, 3]"),
        ("{probes: [{param: conv/0, index: [90]}]}", "within its shape [5, 2, 3, 3]"),
        ("7", "audit: got 7; expected"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(workdir: Path, audit: str, said: str) -> None:
    source = write_recorded(workdir, audit)
    refused = refusal(caffe_pysgd.get_solver, source)
    assert said in refused
    assert refused.startswith(f"{source}: audit")
