"""The in-net host where it belongs: in the unmodified ``caffe train``."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict

import h5py
import numpy as np
import pytest
from helpers.failures import failure_in_log
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, STAGED, write_solver
from helpers.runs import Both, assert_same_bits, break_hook, caffe_train, losses

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import read_model

FORMATS: Dict[str, Dict[str, Any]] = {
    "binary": {},
    "HDF5": {"snapshot_format": "HDF5"},
    "debug_info": {"debug_info": True, "display": 5},
    "with diffs": {"snapshot_diff": True},
    "HDF5 with diffs": {"snapshot_diff": True, "snapshot_format": "HDF5"},
}


def train_both(both: Both, *flags: str) -> Dict[str, str]:
    logs = {}
    for name, solver in (("stock", both.stock), ("ours", both.ours)):
        process = caffe_train(solver, *(flag.format(solver.parent) for flag in flags))
        assert process.returncode == 0, pycaffe.failure_reason(process.stderr)
        logs[name] = process.stderr
    return logs


def resume_both(both: Both, iteration: int, suffix: str = "") -> Dict[str, str]:
    """Resume each from its own snapshot; nothing that came after it is left to be taken for new."""
    for folder in (both.stock.parent, both.ours.parent):
        for file in folder.glob("snap_iter_*"):
            if f"_iter_{iteration}." not in file.name:
                file.unlink()
    return train_both(both, f"--snapshot={{}}/snap_iter_{iteration}.solverstate{suffix}")


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_and_its_resume_give_the_bits_of_the_native_solver(
    workdir: Path, format: str
) -> None:
    source = write_solver(
        workdir, SMALL, snapshot=8, lr_policy="step", gamma=0.5, stepsize=5, **FORMATS[format]
    )
    both = Both.write(source)
    train_both(both)
    assert_same_bits(both.final(20))
    logs = resume_both(both, 8, suffix=".h5" if "HDF5" in format else "")
    assert "state resumed at iteration 8" in logs["ours"]
    assert_same_bits(both.final(20))


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_every_rule_of_caffe_can_be_resumed(workdir: Path, rule: str) -> None:
    fields = {"max_iter": 16, "snapshot": 8, "type": rule, **RULES_OF_CAFFE[rule]}
    both = Both.write(write_solver(workdir, SMALL, **fields))
    train_both(both)
    resume_both(both, 8)
    assert_same_bits(both.final(16))


@pytest.mark.parametrize("net", [net for net in NETS if net != "small"])
def test_every_kind_of_net_can_be_resumed(workdir: Path, net: str) -> None:
    both = Both.write(write_solver(workdir, NETS[net], snapshot=6, max_iter=12, clip_gradients=2))
    train_both(both)
    resume_both(both, 6)
    assert_same_bits(both.final(12))


def test_level_and_stages_of_the_command_line_choose_the_layers(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, STAGED), level=2, stages=("wide", "other"))
    assert {p.layer for p in both.run.parameters} == {"wide", "extra", "out"}
    train_both(both, "--level=2", "--stage=wide,other")
    assert_same_bits(both.final())


def test_the_log_says_the_same_of_loss_rate_and_tests_and_what_was_taken_over(
    workdir: Path,
) -> None:
    source = write_solver(
        workdir, SMALL, display=3, test_iter=2, test_interval=10, average_loss=4,
        lr_policy="inv", gamma=0.01, power=0.75,
    )  # fmt: skip
    logs = train_both(Both.write(source))
    assert losses(logs["ours"]) == losses(logs["stock"])
    assert len(losses(logs["ours"])) > 10
    taken = [line for line in logs["ours"].splitlines() if "Python owns the update" in line]
    assert len(taken) == 1
    assert "rule sgd, 5 parameters, 1514 values, kernels fused" in taken[0]
    assert "state fresh" in taken[0]
    assert re.search(r"Train net output #\d: pysgd_update_l2 = 0\.\d+", logs["ours"])


def test_the_table_of_the_train_net_is_the_native_one_where_ours_is_turned_off(
    workdir: Path,
) -> None:
    write_solver(workdir, SMALL, display=3)
    source = workdir / "run.yaml"
    source.write_text("solver: solver.prototxt\nupdate: {log_outputs: false}\n")
    both = Both.write(source)
    logs = train_both(both)
    assert_same_bits(both.final())
    tables = {
        name: [line.split("] ")[1] for line in log.splitlines() if "Train net output" in line]
        for name, log in logs.items()
    }
    assert len(tables["stock"]) == 7 and tables["ours"] == tables["stock"]


def test_clipping_is_logged_as_caffe_logs_it(workdir: Path) -> None:
    logs = train_both(Both.write(write_solver(workdir, SMALL, clip_gradients=0.5)))
    said = {
        name: [line.split("] ")[1] for line in log.splitlines() if "Gradient clipping" in line]
        for name, log in logs.items()
    }
    assert said["stock"] and said["ours"] == said["stock"]


def test_fine_tuning_starts_from_the_weights_and_a_fresh_history(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL, max_iter=10))
    train_both(both)
    for solver in (both.stock, both.ours):
        model = (solver.parent / "snap_iter_10.caffemodel").rename(solver.parent / "ten.caffemodel")
        tuned = caffe_train(solver, f"--weights={model}")
        assert tuned.returncode == 0
    assert "state fresh" in tuned.stderr
    assert_same_bits(both.final(10))


def test_fine_tuning_from_a_model_of_another_net_ignores_its_state(workdir: Path) -> None:
    Both.write(write_solver(workdir, NETS["normalized"], max_iter=4))
    assert caffe_train(workdir / "ours" / "solver.prototxt").returncode == 0
    model = (workdir / "ours" / "snap_iter_4.caffemodel").rename(workdir / "other.caffemodel")
    both = Both.write(write_solver(workdir, SMALL.replace('"conv"', '"c"').replace('"out"', '"o"')))
    logs = train_both(both, f"--weights={model}")
    assert "state fresh" in logs["ours"]


@pytest.mark.parametrize(
    "setting, says", [("always", "resumed at iteration 10"), ("never", "fresh")]
)
def test_an_explicit_setting_decides_whether_state_is_used(
    workdir: Path, setting: str, says: str
) -> None:
    both = Both.write(write_solver(workdir, SMALL, max_iter=10))
    train_both(both)
    flag = {
        "always": f"--weights={workdir}/ours/snap_iter_10.caffemodel",
        "never": f"--snapshot={workdir}/ours/snap_iter_10.solverstate",
    }[setting]
    solver = both.ours
    solver.write_text(solver.read_text().replace("max_iter: 10", "max_iter: 12"))
    assert f"state {says}" in caffe_train(solver, flag, CAFFE_PYSGD_RESUME=setting).stderr


def test_resuming_by_hand_from_another_nets_snapshot_ends_before_training(workdir: Path) -> None:
    other = Both.write(write_solver(workdir, SMALL.replace('"conv"', '"c"'), max_iter=10))
    train_both(other)
    state = (workdir / "ours" / "snap_iter_10.solverstate").rename(workdir / "ten.solverstate")
    both = Both.write(write_solver(workdir, SMALL))
    process = caffe_train(both.ours, f"--snapshot={state}")
    assert process.returncode == 2
    said = [line for line in process.stderr.splitlines() if line.startswith("caffe-pysgd: ")]
    assert len(said) == 1 and "holds no state of the update pysgd_sgd_" in said[0]
    assert "***" not in process.stderr


def test_resuming_by_hand_from_a_native_snapshot_ends_before_training(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL))
    train_both(both)
    process = caffe_train(both.ours, f"--snapshot={workdir}/stock/snap_iter_20.solverstate")
    assert process.returncode != 0
    assert "Incorrect length of history blobs" in pycaffe.failure_reason(process.stderr)


@pytest.mark.parametrize("effect", ["SIGINT", "SIGHUP"])
def test_signals_do_what_caffe_says_they_do(workdir: Path, effect: str) -> None:
    """SIGINT stops after a snapshot, SIGHUP takes one; both resume with the native bits."""
    both = Both.write(write_solver(workdir, SMALL, max_iter=100000, display=10))
    process = subprocess.Popen(
        [str(pycaffe.binary()), "train", f"--solver={both.ours}"],
        env={**pycaffe.binary_environment(), "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Iteration 20" in line:
            process.send_signal(signal.Signals[effect])
        if "Snapshotting solver state" in line:
            break
    if effect == "SIGHUP":
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    log = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert "Optimization stopped early." in log
    first = min(
        int(re.findall(r"\d+", f.name)[0]) for f in (workdir / "ours").glob("*.solverstate")
    )
    stock = both.stock.read_text().replace("max_iter: 100000", f"max_iter: {first}")
    both.stock.write_text(stock)
    assert caffe_train(both.stock).returncode == 0
    assert_same_bits(both.final(first))


def test_a_failure_inside_a_layer_is_one_line_and_exit_code_2(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL))
    break_hook(both)
    process = caffe_train(both.ours)
    assert failure_in_log(process) == (
        "kernels: got 'none'; expected one of auto, fused, native, numpy"
    )
    assert "Traceback" not in process.stderr
    process = caffe_train(both.ours, CAFFE_PYSGD_TRACEBACK="1")
    assert process.returncode == 2 and "Traceback" in process.stderr


def test_the_model_holds_the_weights_once_and_the_state(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, SMALL))
    train_both(both)
    stock, ours = (p.parent / "snap_iter_20.caffemodel" for p in (both.stock, both.ours))
    weights = stock.stat().st_size
    assert 1.9 * 1514 * 4 < ours.stat().st_size < 2.2 * weights + 4000


def test_a_history_of_another_shape_does_not_end_caffe(cli: Any, workdir: Path) -> None:
    """Caffe aborts over an HDF5 blob whose shape is not its own, though it holds as many values."""
    solver = write_solver(workdir, max_iter=4, snapshot=2, snapshot_format="HDF5")
    assert cli("train", solver).returncode == 0
    state, last = workdir / "solver_iter_2.solverstate.h5", workdir / "solver_iter_4.caffemodel.h5"
    weights = []
    for damage in (False, True):
        with h5py.File(state, "r+") as file:
            history = file["history"]
            number = next(name for name in history if history[name].ndim > 1)
            flat = np.array(history[number]).ravel()
            if damage:
                del history[number]
                history[number] = flat
        resumed = cli("train", solver, "--snapshot", state)
        assert resumed.returncode == 0, resumed.stderr[-2000:]
        weights.append({k: [b.tobytes() for b in v] for k, v in read_model(last).items()})
    assert weights[0] == weights[1]
