"""Sessions: a run that goes on, starts anew or ends, and what it finds in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from helpers.failures import failure
from helpers.hosts import HOSTS, PYTHON_HOSTS
from helpers.programs import run_python
from helpers.recorded_runs import dump, record, record_iterations, rows, write_recorded

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError


@pytest.mark.parametrize("host", HOSTS)
def test_a_resumed_run_goes_on_in_the_same_file(cli: Callable, workdir: Path, host: str) -> None:
    source = write_recorded(workdir, max_iter=6, snapshot=4)
    file = record(cli, source, host)
    if host == "in-net":
        resumed = cli("train", source, "--snapshot=run_snap_iter_4.solverstate", "--iterations=9")
        assert resumed.returncode == 0, resumed.stderr
    else:
        solver = PYTHON_HOSTS[host](source)
        solver.restore("run_snap_iter_4.solverstate")
        solver.step(5)
        solver.close()
    found = check_ledger(file)
    assert (found.intact, found.sessions, found.iterations) == (True, 2, 6 + 5)
    with Store(file) as store:
        assert list(store.series("loss")[0]) == list(range(9))
        assert [s.start_iteration for s in store.sessions()] == [0, 4]
        assert store.manifest()["state"] == "resumed at iteration 4"
        assert [row["kind"] for row in store.rows("events")] == ["resumed"]
        assert {row["iteration"] for row in store.rows("snapshots")} >= {4, 8}
        assert 6 not in {row["iteration"] for row in store.rows("snapshots")}
    assert not list(workdir.glob("run/audit.?.sqlite"))


@pytest.mark.parametrize("host", HOSTS)
def test_a_new_run_keeps_the_audit_of_the_run_before(
    cli: Callable, workdir: Path, host: str
) -> None:
    source = write_recorded(workdir, max_iter=3)
    for _ in range(3):
        file = record(cli, source, host)
    kept = sorted(path.name for path in workdir.glob("run/audit*.sqlite"))
    assert kept == ["audit.1.sqlite", "audit.2.sqlite", "audit.sqlite"]
    for name in kept:
        found = check_ledger(file.with_name(name))
        assert (found.intact, found.sessions, found.iterations) == (True, 1, 3)


def test_restoring_in_the_middle_begins_a_session(workdir: Path) -> None:
    solver = caffe_pysgd.get_solver(write_recorded(workdir, max_iter=20, snapshot=3))
    solver.step(5)
    solver.restore("run_snap_iter_3.solverstate")
    solver.step(2)
    solver.iter = 11
    solver.step(2)
    solver.close()
    assert check_ledger(workdir / "run").intact
    sql = "SELECT session, group_concat(iteration) FROM iterations GROUP BY session"
    found = rows(workdir / "run/audit.sqlite", sql)
    assert found == [(1, "0,1,2,3,4"), (2, "3,4"), (3, "11,12")]


def test_two_writers_of_one_file_are_refused(cli: Callable, workdir: Path) -> None:
    source = write_recorded(workdir, max_iter=3)
    solver = caffe_pysgd.get_solver(source)
    solver.step(1)
    before = dump(workdir / "run/audit.sqlite", ["iterations"])
    with pytest.raises(UserError, match="a solver of this process is recording into it; wait"):
        caffe_pysgd.take_over(source)
    for command in ("train", "solve"):
        said = failure(cli(command, source, GLOG_minloglevel="2"))
        assert "run/audit.sqlite: another process is recording into it; wait" in said
    assert dump(workdir / "run/audit.sqlite", ["iterations"]) == before
    solver.step(1)
    solver.close()
    assert check_ledger(workdir / "run").iterations == 2
    caffe_pysgd.take_over(source)


def test_a_file_that_is_something_else_is_left_alone(workdir: Path) -> None:
    source = write_recorded(workdir)
    (workdir / "run").mkdir()
    (workdir / "run/audit.sqlite").write_text("my diary")
    record_iterations(source, 1)
    assert (workdir / "run/audit.1.sqlite").read_text() == "my diary"
    assert check_ledger(workdir / "run").intact


def test_a_solver_that_is_dropped_or_outlives_the_program_ends_its_session(workdir: Path) -> None:
    source = write_recorded(workdir, max_iter=3)
    solver = caffe_pysgd.take_over(source)
    solver.step(1)
    del solver
    program = (
        "import sys; import caffe_pysgd; keep = caffe_pysgd.get_solver(sys.argv[1]); keep.step(2)"
    )
    assert run_python(program, source).returncode == 0
    for name in ("audit.sqlite", "audit.1.sqlite"):
        ((ended,),) = rows(workdir / "run" / name, "SELECT ended FROM sessions")
        assert ended
        assert check_ledger(workdir / "run" / name).intact


def test_it_can_be_read_while_training_runs(workdir: Path) -> None:
    solver = caffe_pysgd.get_solver(write_recorded(workdir, max_iter=9))
    solver.step(1)
    with Store(workdir / "run") as store:
        for done in range(1, 9):
            assert store.span()[1] == done - 1
            assert check_ledger(store.path).intact
            solver.step(1)
    solver.close()
