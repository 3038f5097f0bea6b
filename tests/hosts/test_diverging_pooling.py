"""A net with max pooling that diverges: NaN makes Caffe's pooling write outside of its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure_in_log
from helpers.nets import write_solver
from helpers.programs import run_python

from caffe_pysgd.stock.snapshots import read_model, read_solver_state

CONVOLUTION = """
layer {{ name: "conv{n}" type: "Convolution" bottom: "{bottom}" top: "conv{n}"
  convolution_param {{ num_output: {outputs} kernel_size: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "pool{n}" type: "Pooling" bottom: "conv{n}" top: "pool{n}"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
"""
NET = (
    """
name: "pooling"
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 8 dim: 2 dim: 28 dim: 28 } shape { dim: 8 dim: 3 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "gaussian" std: 1 } } }
"""
    + CONVOLUTION.format(n=1, bottom="data", outputs=20)
    + CONVOLUTION.format(n=2, bottom="pool1", outputs=50)
    + """
layer { name: "ip" type: "InnerProduct" bottom: "pool2" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""
)


PROGRAM = """
import sys, caffe_pysgd
try:
    caffe_pysgd.{make}("run.yaml").solve()
except caffe_pysgd.UserError as error:
    print(f"caffe-pysgd: {{error}}", file=sys.stderr)
    sys.exit(2)
"""
HOSTS = ("train", "solve", "take_over", "get_solver")


def train_until_it_diverges(cli: Any, workdir: Path, host: str, times: int) -> None:
    fields = {"base_lr": 1e30, "max_iter": 40, "snapshot": 1}
    write_solver(workdir, NET, **fields)
    snapshots = "{prefix: s, overwrite: true}"
    (workdir / "run.yaml").write_text(
        f"solver: solver.prototxt\nrun_dir: run\naudit: true\nsnapshots: {snapshots}\n"
    )
    for _ in range(times):
        if host in ("train", "solve"):
            ended = cli(host, "run.yaml")
        else:
            ended = run_python(PROGRAM.format(make=host))
        said = failure_in_log(ended)
        assert "of the gradient at iteration 1 are not finite" in said
        state = read_solver_state(workdir / "s_iter_1.solverstate")
        assert "ip" in read_model(state.learned_net)


@pytest.mark.parametrize("host", HOSTS)
def test_it_ends_with_one_line_and_its_last_snapshot(cli: Any, workdir: Path, host: str) -> None:
    train_until_it_diverges(cli, workdir, host, times=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("host", HOSTS)
def test_it_always_does(cli: Any, workdir: Path, host: str, part: int) -> None:
    train_until_it_diverges(cli, workdir, host, times=25)
