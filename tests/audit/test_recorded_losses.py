"""The recorded losses are those of Caffe, and what taps them changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

import caffe
import numpy as np
import pytest
from helpers.nets import LOSSES, SHARED, SMALL, write_solver
from helpers.recorded_runs import TESTED, record, rows, write_recorded
from helpers.runs import caffe_train, losses

import caffe_pysgd


@pytest.mark.parametrize("net", [LOSSES, SHARED], ids=["losses", "shared"])
def test_taps_change_no_line_of_the_log_and_no_bit(cli: Callable, workdir: Path, net: str) -> None:
    fields = {"max_iter": 6, "display": 1, "average_loss": 2, "iter_size": 2, **TESTED}
    stock = caffe_train(write_solver(workdir, net, **fields))
    source = write_recorded(workdir, "{}", net, **fields)
    ours = cli("train", source, GLOG_logtostderr="1")
    assert stock.returncode == ours.returncode == 0, ours.stderr
    assert "pysgd_tap_loss" in ours.stderr
    assert losses(ours.stderr) == losses(stock.stderr)
    smoothed = rows(workdir / "run/audit.sqlite", "SELECT smoothed_loss FROM iterations")
    logged = re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", stock.stderr)
    assert [f"{value:g}" for (value,) in smoothed] == logged[:6]
    verified = cli("verify", source)
    assert "verify: 0 of" in verified.stdout, verified.stderr


def test_the_loss_is_what_caffe_says(workdir: Path) -> None:
    """The drop-in solver takes it from Caffe's own forward; the others are equal to that."""
    source = write_recorded(workdir, max_iter=5, net=LOSSES)
    native = caffe.SGDSolver("run.prototxt")
    expected = []
    for _ in range(5):
        native.step(1)
        blobs = native.net.blobs
        spread = blobs["spread"].data.ravel()
        total = float(blobs["loss"].data) + float((spread * np.float32(0.03)).sum())
        expected.append(total)
    solver = caffe_pysgd.take_over(source)
    solver.solve()
    solver.close()
    found = [loss for (loss,) in rows(workdir / "run/audit.sqlite", "SELECT loss FROM iterations")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # the sum's order is Caffe's secret


def test_a_net_whose_loss_is_used_elsewhere_has_no_tap_and_no_loss(
    cli: Callable, workdir: Path
) -> None:
    net = SMALL + 'layer { name: "again" type: "Power" bottom: "loss" top: "again" }\n'
    file = record(cli, write_recorded(workdir, max_iter=3, net=net), "in-net")
    assert rows(file, "SELECT count(*), count(loss) FROM iterations") == [(3, 0)]
    assert "verify: 0 of" in cli("verify", "run.yaml").stdout
