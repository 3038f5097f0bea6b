"""The neutral solver: a native one that leaves the update to Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caffe_pysgd.run.run import Run
from caffe_pysgd.stock.solver_file import replace_train_net
from caffe_pysgd.update.policies import caffe_knows_the_rate


def neutral_solver(run: Run, net_path: Path) -> Any:
    """Return a copy of the run's solver whose native update changes no bit of the weights.

    It reads the train net from a file.

    With plain SGD, no decay and no clipping, ``data -= rate * 0`` is a no-op; rate, display, tests,
    snapshots and signals stay Caffe's. A momentum of 1 keeps a history of zeros what it is, and is
    the one that a BLAS has nothing to do for. A rate that Caffe cannot compute is 0 in its log;
    ``pysgd_rate`` shows the true one.
    """
    neutral = type(run.solver)()
    neutral.CopyFrom(run.solver)
    replace_train_net(neutral, net_path)
    neutral.type = "SGD"
    neutral.momentum = 1
    for field in ("weight_decay", "clip_gradients"):
        neutral.ClearField(field)
    if not caffe_knows_the_rate(run.h):
        neutral.lr_policy, neutral.base_lr = "fixed", 0
    return neutral
