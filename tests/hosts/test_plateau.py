"""lr_policy plateau, which BVLC's Caffe does not have: in every host, and over snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
import pytest
from helpers.failures import failure
from helpers.hosts import HOSTS, PYTHON_HOSTS
from helpers.nets import SMALL
from helpers.recorded_runs import record, rows, write_recorded
from helpers.solvers import snapshot_name

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import read_model, read_solver_state

WINDOWS = [3, 4, 2, 5]
FIELDS: Dict[str, Any] = {"lr_policy": "plateau", "gamma": 0.5, "max_iter": 24}
SUFFIX = {"BINARYPROTO": "", "HDF5": ".h5"}


def write(folder: Path, more: str = "", **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    source = write_recorded(folder, net=SMALL, **{**FIELDS, **fields})
    windows = f"update: {{plateau_winsize: {WINDOWS}{more}}}\n"
    source.write_text(source.read_text() + windows)
    return source


def rates_of_ssd(losses: Sequence[float]) -> List[float]:
    """``GetLearningRate`` of the sgd_solver.cpp of SSD's Caffe."""
    minimum_loss, last_event, step, rates = 3.4028235e38, 0, 0, []
    for i, loss in enumerate(losses):
        if loss < minimum_loss:
            minimum_loss, last_event = loss, i
        if step < len(WINDOWS) and i >= last_event + WINDOWS[step]:
            step, last_event = step + 1, i
        rates.append(float(np.float32(float(np.float32(0.01)) * 0.5**step)))
    return rates


@pytest.mark.parametrize("host", HOSTS)
def test_the_rate_is_that_of_ssds_caffe(workdir: Path, cli: Any, host: str) -> None:
    audit = record(cli, write(workdir / "one", average_loss=2), host)
    found = rows(audit, "SELECT smoothed_loss, rate FROM iterations ORDER BY iteration")
    losses, rates = zip(*found)
    assert list(rates) == rates_of_ssd(losses)
    assert len(set(rates)) >= 3
    late = [i for i, loss in enumerate(losses) if i and loss < min(losses[:i])]
    assert late  # the minimum moves, too


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("host", HOSTS)
def test_a_resumed_run_waits_no_longer_and_no_shorter(
    workdir: Path, cli: Any, host: str, format: str
) -> None:
    source = write(workdir / "one", snapshot_format=format)
    state = source.parent / f"run_snap_iter_11.solverstate{SUFFIX[format]}"
    if host == "in-net":
        assert cli("train", source, "--iterations=11").returncode == 0
        assert cli("train", source, f"--snapshot={state}").returncode == 0
    else:
        first = PYTHON_HOSTS[host](source)
        first.step(11)
        first.snapshot()
        first.close()
        second = PYTHON_HOSTS[host](source)
        second.restore(str(state))
        assert second.updater.plateau == first.updater.plateau
        second.solve()
        second.close()
    audit = source.parent / "run" / "audit.sqlite"
    sql = "SELECT smoothed_loss, rate FROM iterations ORDER BY session, iteration"
    losses, rates = zip(*rows(audit, sql))
    assert len(rates) == FIELDS["max_iter"]
    assert list(rates) == rates_of_ssd(losses)
    assert rates[-1] < rates[11] < rates[0]


def test_in_net_snapshots_hold_it_and_convert_there_and_back(workdir: Path, cli: Any) -> None:
    source = write(workdir / "one")
    assert cli("train", source, "--iterations=11").returncode == 0
    state = source.parent / "run_snap_iter_11.solverstate"
    model = read_model(state.with_suffix(".caffemodel"))
    for prefix in ("stock", "back"):
        assert cli("convert", source, workdir / prefix, "--snapshot", state).returncode == 0
        state = workdir / f"{prefix}_iter_11.solverstate"
    held = read_solver_state(workdir / "stock_iter_11.solverstate")
    assert held.iter_last_event > 0
    assert held.current_step > 0
    (hook,) = (layer for layer in model if layer.startswith("pysgd_sgd"))
    header = model[hook][1]
    assert header[4] == held.minimum_loss
    assert read_model(workdir / "back_iter_11.caffemodel")[hook][1].tobytes() == header.tobytes()


def test_the_audit_explains_and_replays_it(workdir: Path, cli: Any) -> None:
    source = write(workdir / "one")
    audit = record(cli, source, "solver")
    replayed = cli("audit", "replay", audit.parent)
    assert replayed.returncode == 0, replayed.stderr
    arguments = ("explain", audit.parent, "--param", "out/0", "--index", "0,0")
    for iteration in (0, 12, 23):
        explained = cli(*arguments, "--iteration", iteration)
        assert explained.returncode == 0, explained.stdout + explained.stderr
        assert "base_lr · gamma^current_step" in explained.stdout


def test_the_native_solver_takes_such_a_snapshot_for_what_it_knows(workdir: Path) -> None:
    """The two fields are those of SSD's proto; BVLC's reader skips them."""
    solver = PYTHON_HOSTS["solver"](write(workdir / "one"))
    solver.step(11)
    solver.snapshot()
    path = snapshot_name(workdir / "one" / "run_snap.prototxt", 11)
    message = pycaffe.messages().SolverState.FromString(path.read_bytes())
    assert (message.iter, message.current_step) == (11, solver.updater.current_step)
    assert len(message.history) == len(solver.history)


def test_what_it_cannot_do_is_refused(workdir: Path, cli: Any) -> None:
    source = write(workdir / "one")
    bare = source.parent / "run.prototxt"
    assert "plateau_winsize: got []; expected the iterations to wait" in failure(cli("train", bare))
    own = write(
        workdir / "own", ", params: [{match: 'out/*', lr_policy: plateau}]", lr_policy="fixed"
    )
    assert "lr_policy: got 'plateau'; expected to be given for all" in failure(cli("train", own))
    assert "Caffe has no lr_policy 'plateau'" in failure(cli("verify", source))
