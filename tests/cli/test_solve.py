"""``solve``: the flags, log, signals and snapshots of `caffe train`; a bar on a terminal."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from helpers.failures import failure
from helpers.nets import NETS, SMALL, write_solver
from helpers.programs import shown_on_terminal
from helpers.running import Running
from helpers.runs import caffe_train, losses
from helpers.solvers import same_snapshots, snapshot_name, write_pair, write_staged_pair

from caffe_pysgd.stock.snapshots import read_solver_state

SPEED = re.compile(r" \(\S+ iter/s, \S+s/\d+ iters\)")


def said(log: str, folder: str) -> List[str]:
    """Return what a log says from the start of training on, without times and speeds."""
    lines = [line.split("] ", 1)[1] for line in log.splitlines() if "] " in line]
    start = next(number for number, line in enumerate(lines) if line.startswith("Solving "))
    return [SPEED.sub("", line).replace(f"/{folder}/", "/") for line in lines[start:]]


EVERYTHING: Dict[str, Any] = {
    "display": 2, "average_loss": 3, "test_compute_loss": True, "iter_size": 2, "max_iter": 9,
    "clip_gradients": 0.3, "lr_policy": "multistep", "gamma": 0.5, "stepvalue": [3, 7],
    "snapshot": 4,
}  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"test_initialization": False, "max_iter": 12}])
def test_its_log_is_that_of_caffe_train_word_by_word(
    cli: Callable, workdir: Path, fields: Dict[str, Any]
) -> None:
    stock, ours = write_staged_pair(workdir, **{**EVERYTHING, **fields})
    trained, solved = caffe_train(stock), cli("solve", ours)
    assert (trained.returncode, solved.returncode, solved.stdout) == (0, 0, "")
    expected = said(trained.stderr, "stock")
    assert said(solved.stderr, "ours") == expected
    assert losses(solved.stderr) == losses(trained.stderr)
    for word in ("lr = ", "Test loss: ", "Train net output #0", "Test net output #0",
                 "MultiStep Status", "Gradient clipping", "Snapshotting"):  # fmt: skip
        assert any(word in line for line in expected), word
    # glog's own prefix, which BVLC's parse_log.py takes the time from
    lines = [line for line in solved.stderr.splitlines() if "Iteration " in line]
    prefix = re.compile(r"I(\d{4}){1,2} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+\] Iteration \d+")
    assert all(prefix.match(line) for line in lines if "MultiStep" not in line)
    last = EVERYTHING["max_iter"] if not fields else fields["max_iter"]
    same_snapshots(snapshot_name(stock, last), snapshot_name(ours, last))


def test_quiet_is_quiet(cli: Callable, workdir: Path) -> None:
    write_solver(workdir, max_iter=3, display=1)
    solved = cli("solve", "solver.prototxt", GLOG_minloglevel="2")
    assert (solved.returncode, solved.stdout, solved.stderr) == (0, "", "")


def test_the_solver_can_be_given_as_caffe_wants_it(cli: Callable, workdir: Path) -> None:
    write_solver(workdir, max_iter=50)
    solved = cli("solve", "--solver=solver.prototxt", "--iterations=3")
    assert solved.returncode == 0, solved.stderr
    assert snapshot_name(workdir / "solver.prototxt", 3).exists()
    assert failure(cli("solve")) == (
        "need a solver definition to train: give X, a solver.prototxt or a YAML"
    )


def test_it_resumes_as_caffe_train_does(cli: Callable, workdir: Path) -> None:
    stock, ours = write_pair(workdir, NETS["normalized"], max_iter=8, snapshot=4, display=1)
    assert caffe_train(stock).returncode == 0
    state = snapshot_name(stock, 4)
    trained = caffe_train(stock, f"--snapshot={state}")
    solved = cli("solve", ours, "--snapshot", state)
    assert solved.returncode == 0, solved.stderr
    assert f"Resuming from {state}" in solved.stderr
    assert losses(solved.stderr) == losses(trained.stderr)
    same_snapshots(snapshot_name(stock, 8), snapshot_name(ours, 8))


def test_it_fine_tunes_as_caffe_train_does(cli: Callable, workdir: Path) -> None:
    for name, seed in (("first", 1), ("second", 2)):
        path = write_solver(workdir, NETS["normalized"], name=name, max_iter=2, random_seed=seed)
        assert caffe_train(path).returncode == 0
    stock, ours = write_pair(workdir, max_iter=4, display=1, test_iter=[1], test_interval=2)
    # a model that knows one of the layers, and one after it that knows it, too
    models = "first_iter_2.caffemodel,second_iter_2.caffemodel"
    refit = SMALL.replace('"hidden"', '"frozen_not"').replace('"out"', '"out_new"')
    for path in (stock, ours):
        (path.parent / "solver_net.prototxt").write_text(refit)
    trained = caffe_train(stock, f"--weights={models}")
    solved = cli("solve", ours, "--weights", models)
    assert (trained.returncode, solved.returncode) == (0, 0), solved.stderr
    assert "Finetuning from second_iter_2.caffemodel" in solved.stderr
    assert losses(solved.stderr) == losses(trained.stderr)
    same_snapshots(snapshot_name(stock, 4), snapshot_name(ours, 4))


def test_level_and_stage_are_those_of_caffe_train(cli: Callable, workdir: Path) -> None:
    stock, ours = write_staged_pair(workdir, max_iter=4, display=1)
    for path in (stock, ours):
        path.write_text(path.read_text().replace('train_state { stage: "wide" }', ""))
    trained = caffe_train(stock, "--level=2", "--stage=wide")
    solved = cli("solve", ours, "--level=2", "--stage=wide")
    assert (trained.returncode, solved.returncode) == (0, 0), solved.stderr
    assert losses(solved.stderr) == losses(trained.stderr)
    same_snapshots(snapshot_name(stock, 4), snapshot_name(ours, 4))


def test_a_run_dir_receives_the_files_that_were_trained(cli: Callable, workdir: Path) -> None:
    write_solver(workdir, max_iter=3)
    (workdir / "run.yaml").write_text("solver: solver.prototxt\nupdate: {momentum: 0.5}\n")
    solved = cli("solve", "run.yaml", "--run-dir=runs/a")
    assert solved.returncode == 0, solved.stderr
    assert "momentum: 0.5" in Path("runs/a/solver.prototxt").read_text()
    assert Path("runs/a/net.prototxt").exists()


# -- signals --------------------------------------------------------------------------------------


LONG = {"max_iter": 1_000_000, "display": 20}


def test_sigint_stops_after_a_snapshot_from_which_caffe_resumes(workdir: Path) -> None:
    source = write_solver(workdir, **LONG)
    with Running("solve", "solver.prototxt") as running:
        running.until("Iteration 100 ")
        running.send(signal.SIGINT)
        assert running.end() == 0
    assert "Optimization stopped early." in running.log
    assert "Optimization Done." in running.log  # the tool's own last word, as in caffe.cpp
    (state,) = workdir.glob("*.solverstate")
    iteration = read_solver_state(state).iteration
    assert 100 < iteration < 1_000_000
    source.write_text(source.read_text().replace("max_iter: 1000000", f"max_iter: {iteration + 3}"))
    resumed = caffe_train(source, f"--snapshot={state}")
    assert resumed.returncode == 0, resumed.stderr
    assert snapshot_name(source, iteration + 3).exists()


def test_sighup_takes_a_snapshot_and_goes_on(workdir: Path) -> None:
    write_solver(workdir, **LONG)
    with Running("solve", "solver.prototxt") as running:
        running.until("Iteration 100 ")
        running.send(signal.SIGHUP)
        running.until("Snapshotting solver state")
        running.until("Iteration ", times=3)
        assert running.process.poll() is None
        running.send(signal.SIGINT)
        assert running.end() == 0
    first, last = sorted(read_solver_state(p).iteration for p in workdir.glob("*.solverstate"))
    assert 100 < first < last


def test_effects_can_be_exchanged_and_switched_off(workdir: Path) -> None:
    write_solver(workdir, **LONG)
    with Running(
        "solve", "solver.prototxt", "--sigint_effect=none", "--sighup_effect=stop"
    ) as running:
        running.until("Iteration 100 ")
        running.send(signal.SIGINT)
        running.until("Iteration ", times=5)
        assert not list(workdir.glob("*.solverstate"))
        running.send(signal.SIGHUP)
        assert running.end() == 0
    assert "Optimization stopped early." in running.log
    assert len(list(workdir.glob("*.solverstate"))) == 1


def test_a_signal_while_testing_interrupts_the_test(workdir: Path) -> None:
    write_solver(workdir, max_iter=5, test_iter=[1_000_000], test_interval=5)
    with Running("solve", "solver.prototxt", "--sighup_effect=none") as running:
        running.until("Testing net (#0)")
        running.send(signal.SIGHUP)
        running.send(signal.SIGINT)
        assert running.end() == 0
    assert "Test interrupted." in running.log
    assert snapshot_name(workdir / "solver.prototxt", 0).exists()


# -- a terminal -----------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_with_loss_rate_speed_and_time_left(workdir: Path) -> None:
    write_solver(workdir, max_iter=30, display=1)
    shown = shown_on_terminal("stderr", "solve", "solver.prototxt", COLUMNS="120")
    assert "Iteration" not in shown
    assert "solver.cpp" not in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    last = [line for line in re.split(r"[\r\n]+", plain) if line.strip()][-1]
    assert re.search(r"30/30\s+loss \d\S* lr 0\.01 \d+\.\d it/s 0:00:00", last), plain
    assert snapshot_name(workdir / "solver.prototxt", 30).exists()


def test_a_terminal_shows_the_log_if_it_is_asked_for(workdir: Path) -> None:
    write_solver(workdir, max_iter=4, display=1)
    shown = shown_on_terminal(
        "stderr", "solve", "solver.prototxt", COLUMNS="120", GLOG_logtostderr="1"
    )
    assert "Iteration 3 (" in shown
    assert "it/s" not in shown


# -- mistakes -------------------------------------------------------------------------------------


def test_mistakes_are_told_in_one_line_and_leave_nothing(cli: Callable, workdir: Path) -> None:
    (workdir / "other").mkdir()
    other = write_solver(workdir / "other", NETS["normalized"], max_iter=2)
    assert caffe_train(other).returncode == 0
    write_solver(workdir)
    before = sorted(workdir.rglob("*"))
    state = snapshot_name(other, 2)
    for flags, words in (
        (["--snapshot=no.solverstate"], "no.solverstate: cannot be read: No such file"),
        ([f"--snapshot={state}"], "is a snapshot of another net: it has no parameter hidden/0"),
        (["--snapshot=other/solver_iter_2.caffemodel"], "is not a complete Caffe solver state"),
        (["--weights=no.caffemodel"], "no.caffemodel: cannot be read: No such file"),
        ([f"--weights={state}"], "is not a complete Caffe model"),
        (["--weights=a", "--snapshot=b"], "give --snapshot to resume or --weights to fine-tune"),
        (["--sigint_effect=explode"], "Invalid value for '--sigint_effect'"),
        (["--iterations=0"], "Invalid value for '--iterations'"),
    ):
        assert words in failure(cli("solve", "solver.prototxt", *flags))
    write_solver(workdir, solver_mode="GPU")
    assert "without GPU support" in failure(cli("solve", "solver.prototxt"))
    write_solver(workdir)
    assert sorted(workdir.rglob("*")) == before
