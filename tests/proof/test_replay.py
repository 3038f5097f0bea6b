"""A recorded training, done again: real runs of every host, resumed, stopped and tampered with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from helpers.audits import chain_anew
from helpers.nets import NETS, write_solver
from helpers.solved_runs import AUDIT, train, write_run

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.proof.replay import Replay, replay
from caffe_pysgd.proof.rerun import Retraining


def replayed(first: int = 0, last: int = 1000) -> Replay:
    with Store(AUDIT) as store:
        upto = store.span()[1]
        assert upto is not None
        return replay(store, first, min(last, upto), lambda done, total: None)


def tamper(sql: str) -> None:
    """Change a record and write the whole chain anew, as one would who knows how."""
    connection = sqlite3.connect(str(AUDIT))
    assert connection.execute(sql).rowcount == 1
    chain_anew(connection)
    connection.commit()
    connection.close()
    assert check_ledger(AUDIT).intact


def contents(folder: Path) -> Dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- what can be replayed -------------------------------------------------------------------------


def test_a_run_of_the_solver_is_confirmed_and_nothing_is_written(workdir: Path) -> None:
    probes = [{"param": "conv/0", "index": [1, 0, 2, 2]}]
    write_run(workdir, audit={"weights_every": 5, "histograms": 4, "probes": probes})
    train(20)
    before = contents(workdir)
    result = replayed()
    assert (result.difference, result.iterations, result.hashes) == (None, 20, 4)
    assert result.verdict == "replay: iterations 0 to 19: all 4 recorded hashes confirmed"
    assert contents(workdir) == before


RUNS: Dict[str, Dict[str, Any]] = {
    "dropout and BatchNorm, Adam": {
        "net": NETS["normalized"], "type": "Adam", "base_lr": 0.001, "iter_size": 2,
    },
    "shared, AdamW with groups": {
        "net": NETS["shared"],
        "update": {
            "rule": "adamw", "warmup_iter": 5, "base_lr": 0.001,
            "params": [{"match": "out/*", "rule": "sgd", "lr_policy": "step", "gamma": 0.5,
                        "stepsize": 3, "freeze_until": 4}],
        },
    },
    "multistep, clipped": {
        "lr_policy": "multistep", "gamma": 0.5, "stepvalue": [3, 11], "clip_gradients": 2,
        "average_loss": 4, "snapshot_format": "HDF5",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_inside_caffe_train_and_one_resumed_are_confirmed(
    name: str, workdir: Path, cli: Callable
) -> None:
    write_run(workdir, audit={"weights_every": 4}, **RUNS[name])
    trained = cli("train", "run.yaml", "--iterations", 16)
    assert trained.returncode == 0, trained.stderr
    (state,) = workdir.glob("*_iter_8.solverstate*")
    trained = cli("train", "run.yaml", "--snapshot", state)
    assert trained.returncode == 0, trained.stderr
    with Store(AUDIT) as store:
        assert [s.start_iteration for s in store.sessions()] == [0, 8]
    result = replayed()
    assert (result.difference, result.iterations, result.hashes) == (None, 20, 5)
    result = replayed(14, 17)
    assert (result.difference, result.iterations, result.hashes) == (None, 4, 1)


def test_a_snapshot_on_the_way_leads_to_the_same_data_and_random_numbers(workdir: Path) -> None:
    write_run(workdir, NETS["normalized"])
    train(20)
    assert replayed(17).difference is None
    with Store(AUDIT) as store:
        (session,) = store.sessions()
        retraining = Retraining(store, session, skip_to=17)
        assert (retraining.skipped_to, retraining.solver.iter) == (16, 16)
        # What Caffe does, going on from a snapshot, are other data and other random numbers.
        state = str(next(workdir.glob("*_iter_16.solverstate")))
        resumed = caffe_pysgd.get_solver("solver.prototxt")
        resumed.restore(state)
        resumed.step(1)
        retraining.train(17, lambda iteration: True)
        assert float(retraining.solver.smoothed_loss) != float(resumed.smoothed_loss)


def test_data_of_a_file_come_in_the_same_order(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable
) -> None:
    monkeypatch.chdir(mnist)
    solver = (mnist / "examples/mnist/lenet_solver.prototxt").read_text()
    solver += "\nsnapshot: 6\ntest_initialization: false\n"
    solver = "\n".join(
        f'snapshot_prefix: "{tmp_path}/lenet"' if line.startswith("snapshot_prefix") else line
        for line in solver.splitlines()
        if not line.startswith("snapshot:") or line == "snapshot: 6"
    )  # fmt: skip
    (tmp_path / "solver.prototxt").write_text(solver)
    (tmp_path / "run.yaml").write_text("solver: solver.prototxt\nrun_dir: run\naudit:\n")
    trained = cli("train", tmp_path / "run.yaml", "--iterations", 10)
    assert trained.returncode == 0, trained.stderr
    monkeypatch.chdir(tmp_path)  # the data are looked for where the run looked
    for arguments in ((), ("--from", "8", "--to", "9")):
        done = cli("audit", "replay", tmp_path / "run", *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        assert done.stdout.splitlines()[-1].endswith("recorded hashes confirmed")


def test_the_record_of_a_run_without_an_audit_is_confirmed(workdir: Path, cli: Callable) -> None:
    write_solver(workdir, max_iter=12, snapshot=5)
    solved = cli("solve", "solver.prototxt", "--run-dir", "runs/a")
    assert solved.returncode == 0, solved.stderr
    result = replayed()
    assert (result.difference, result.iterations, result.hashes) == (None, 12, 3)


def test_a_run_that_a_gradient_ended_is_confirmed_up_to_there(workdir: Path) -> None:
    write_run(workdir, base_lr=1e30)
    with pytest.raises(UserError, match="not finite"):
        train(20)
    result = replayed()
    assert result.difference is None
    assert 0 < result.iterations < 20


# -- what differs ---------------------------------------------------------------------------------


CHANGED = {
    "UPDATE figures SET l2 = l2 * 1.0000001 WHERE iteration = 11 AND parameter = 2"
    " AND quantity = 'gradient'": (11, "hidden/0", "gradient l2"),
    "UPDATE weights SET sha256 = lower(hex(zeroblob(32))) WHERE iteration = 9 AND parameter = 1": (
        9,
        "conv/1",
        "sha256",
    ),
    "UPDATE iterations SET loss = loss + 1e-9 WHERE iteration = 3": (3, "", "loss"),
    "UPDATE updates SET local_rate = 1 WHERE iteration = 5 AND parameter = 0": (
        5,
        "conv/0",
        "local_rate",
    ),
    "UPDATE tests SET value = value + 1 WHERE iteration = 12": (12, "", "test net 0 loss 0"),
}


def test_what_was_changed_is_named_though_the_chain_is_whole(workdir: Path) -> None:
    write_run(workdir, audit={"weights_every": 5})
    train(20)
    untouched = AUDIT.read_bytes()
    for sql, (iteration, parameter, what) in CHANGED.items():
        AUDIT.write_bytes(untouched)
        tamper(sql)
        result = replayed(iteration - 2, iteration + 2)
        difference = result.difference
        assert difference is not None, sql
        found = (difference.iteration, difference.parameter, difference.what, difference.others)
        assert found == (iteration, parameter, what, 0)
        assert result.iterations == 2  # those before it
