"""``train``: becomes `caffe train`, and checks first what it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure
from helpers.nets import SHARED, SMALL, write_solver
from helpers.runs import caffe_train

from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve


def stock_snapshot(workdir: Path, name: str = "solver", **fields: Any) -> Path:
    """Train natively for three iterations; return the ``.solverstate``."""
    source = write_solver(workdir, name=name, max_iter=3, snapshot_prefix=f"stock_{name}", **fields)
    trained = caffe_train(source)
    assert trained.returncode == 0, trained.stderr
    return Path(f"stock_{name}_iter_3.solverstate")


def own_snapshot(cli: Any, workdir: Path, name: str = "solver", **fields: Any) -> Path:
    source = write_solver(workdir, name=name, max_iter=3, snapshot_prefix=f"own_{name}", **fields)
    trained = cli("train", source, "--run-dir=own", GLOG_logtostderr="1")
    assert trained.returncode == 0, trained.stderr
    return Path(f"own_{name}_iter_3.solverstate")


def test_train_is_caffe_train_with_its_log_and_exit_code(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=3, display=1)
    trained = cli("train", "solver.prototxt", GLOG_logtostderr="1")
    assert trained.returncode == 0
    assert "Python owns the update: rule sgd" in trained.stderr
    assert "Optimization Done." in trained.stderr
    assert Path("runs/solver/solver.prototxt").exists()
    assert Path("solver_iter_3.solverstate").exists()


def test_arguments_after_the_dashes_go_to_caffe_as_they_are(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=3)
    trained = cli("train", "solver.prototxt", "--", "-alsologtostderr", "--sigint_effect", "none")
    assert trained.returncode == 0, trained.stderr
    assert "Optimization Done." in trained.stderr
    refused = cli("train", "solver.prototxt", "--", "--no_such_flag=1")
    assert refused.returncode == 1
    assert "unknown command line flag 'no_such_flag'" in refused.stderr


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--solver=x", "belongs before the '--'"),
        ("-snapshot=x", "belongs before the '--'"),
        ("--snapshot", "belongs before the '--'"),
        ("--weights=x", "belongs before the '--'"),
        ("--level=1", "belongs before the '--'"),
        ("--stage=a", "belongs before the '--'"),
        ("--iterations=5", "belongs before the '--'"),
        ("--run-dir=d", "belongs before the '--'"),
    ],
)
def test_flags_of_its_own_are_refused_after_the_dashes(
    cli: Any, workdir: Path, argument: str, said: str
) -> None:
    assert failure(cli("train", "solver.prototxt", "--", argument)) == f"{argument}: {said}"


def test_a_flag_of_caffes_before_the_dashes_is_told_where_it_belongs(
    cli: Any, workdir: Path
) -> None:
    write_solver(workdir)
    assert failure(cli("train", "solver.prototxt", "--gpu=0")) == (
        "No such option: --gpu; a flag of caffe's own goes behind a '--'"
    )


def test_it_resumes_from_its_own_snapshot(cli: Any, workdir: Path) -> None:
    snapshot = own_snapshot(cli, workdir)
    arguments = ("train", "solver.prototxt", "--run-dir=own", "--iterations=6")
    resumed = cli(*arguments, "--snapshot", snapshot, GLOG_logtostderr="1")
    assert resumed.returncode == 0, resumed.stderr
    assert "state resumed at iteration 3" in resumed.stderr
    assert Path("own_solver_iter_6.solverstate").exists()


def test_a_stock_snapshot_is_refused_with_the_way_to_use_its_weights(
    cli: Any, workdir: Path
) -> None:
    snapshot = stock_snapshot(workdir)
    assert failure(cli("train", "solver.prototxt", "--snapshot", snapshot)) == (
        f"{snapshot}: was taken by Caffe's own solver and holds no state of the in-net update; "
        "'caffe-pysgd convert' makes an in-net snapshot of it; to start from its weights alone, "
        "give --weights stock_solver_iter_3.caffemodel"
    )
    assert not Path("runs").exists()
    trained = cli("train", "solver.prototxt", "--weights=stock_solver_iter_3.caffemodel",
                  GLOG_logtostderr="1")  # fmt: skip
    assert trained.returncode == 0
    assert "Finetuning from stock_solver_iter_3.caffemodel" in trained.stderr
    assert "state fresh" in trained.stderr


@pytest.mark.parametrize("taken", ["stock", "own"])
def test_a_snapshot_of_another_net_is_refused(cli: Any, workdir: Path, taken: str) -> None:
    fields = {"name": "other", "net": SHARED}
    snapshot = stock_snapshot(workdir, **fields) if taken == "stock" else own_snapshot(
        cli, workdir, **fields)  # fmt: skip
    write_solver(workdir)
    assert failure(cli("train", "solver.prototxt", "--snapshot", snapshot)) == (
        f"{taken}_other_iter_3.caffemodel: is a snapshot of another net: it has no parameter conv/0"
    )


def test_a_snapshot_of_a_net_with_other_sizes_is_refused(cli: Any, workdir: Path) -> None:
    snapshot = own_snapshot(cli, workdir)
    net = workdir / "solver_net.prototxt"
    net.write_text(net.read_text().replace("num_output: 11", "num_output: 12"))
    said = failure(cli("train", "solver.prototxt", "--snapshot", snapshot))
    assert said == (
        "own_solver_iter_3.caffemodel: is a snapshot of another net: hidden/0 has shape "
        "(11, 125) there, (12, 125) here"
    )


def test_a_model_given_as_a_snapshot_and_the_reverse_are_refused(cli: Any, workdir: Path) -> None:
    state = own_snapshot(cli, workdir)
    model = state.with_suffix(".caffemodel")
    assert failure(cli("train", "solver.prototxt", "--snapshot", model)) == (
        f"{model}: is not a complete Caffe solver state (.solverstate)"
    )
    assert failure(cli("train", "solver.prototxt", "--weights", state)) == (
        f"{state}: is not a complete Caffe model (.caffemodel)"
    )


def test_a_snapshot_whose_model_is_gone_is_refused(cli: Any, workdir: Path) -> None:
    state = own_snapshot(cli, workdir)
    state.with_suffix(".caffemodel").unlink()
    assert failure(cli("train", "solver.prototxt", "--snapshot", state)) == (
        f"{state}: its model own_solver_iter_3.caffemodel is not there (it is looked for "
        f"relative to the working directory, {workdir})"
    )


@pytest.mark.parametrize("flag", ["--snapshot", "--weights"])
def test_a_file_that_is_not_there_is_refused(cli: Any, workdir: Path, flag: str) -> None:
    write_solver(workdir)
    assert failure(cli("train", "solver.prototxt", flag, "no")) == (
        "no: cannot be read: No such file or directory"
    )


def test_snapshot_and_weights_together_are_refused(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    assert failure(cli("train", "solver.prototxt", "--snapshot=a", "--weights=b")) == (
        "give --snapshot to resume or --weights to fine-tune, not both"
    )


def test_weights_of_two_files_are_both_loaded(cli: Any, workdir: Path) -> None:
    state = stock_snapshot(workdir)
    model = str(state.with_suffix(".caffemodel"))
    both = cli("train", "solver.prototxt", f"--weights={model},{model}", GLOG_logtostderr="1")
    assert both.returncode == 0, both.stderr
    assert failure(cli("train", "solver.prototxt", f"--weights={model},no")) == (
        "no: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("first, then", [({}, {"debug_info": True}), ({"debug_info": True}, {})])
@pytest.mark.parametrize("format", ["BINARYPROTO", "HDF5"])
def test_a_run_resumes_after_debug_info_or_the_format_was_changed(
    cli: Any, workdir: Path, first: Any, then: Any, format: str
) -> None:
    """Both change how many blobs Caffe keeps a history of, which it would abort on."""
    fields = {"snapshot": 3, "max_iter": 6, "display": 1}
    write_solver(workdir, SMALL, **fields, **first)
    assert cli("train", "solver.prototxt").returncode == 0
    write_solver(workdir, SMALL, **fields, snapshot_format=format, **then)
    process = cli("train", "solver.prototxt", "--snapshot", "solver_iter_3.solverstate")
    assert process.returncode == 0, process.stderr[-2000:]
    assert "state resumed at iteration 3" in process.stderr


def test_an_empty_snapshot_flag_is_no_resume(workdir: Path) -> None:
    """Scripts write --snapshot=$STATE, and Caffe takes an empty one for none."""
    run = resolve(write_solver(workdir, SMALL, max_iter=2))
    process = caffe_train(write_injected(run, workdir / "d"), "--snapshot=")
    assert process.returncode == 0 and "state fresh" in process.stderr


def test_the_solver_can_be_given_as_caffe_wants_it(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=2)
    trained = cli("train", "--solver=solver.prototxt", "--", "-logtostderr")
    assert trained.returncode == 0, trained.stderr
    assert "Optimization Done." in trained.stderr


def test_a_gpu_that_this_caffe_has_not_is_one_line(cli: Any, workdir: Path) -> None:
    for mode, flags in (("CPU", ["--", "--gpu=0"]), ("GPU", [])):
        write_solver(workdir, solver_mode=mode)
        said = failure(cli("train", "solver.prototxt", *flags))
        assert said.startswith("this Caffe was built without GPU support")
        assert not Path("runs").exists()
