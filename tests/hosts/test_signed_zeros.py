"""Whole runs of a net whose fillers leave many weights at -0.0, in every host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hosts import PYTHON_HOSTS
from helpers.nets import RULES_OF_CAFFE, write_solver
from helpers.solvers import native, same_trails, trail

from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve

# Caffe multiplies Gaussian values by a mask: a negative one times 0 is -0.0. A batch of two leaves
# many units without a gradient, so that the zeros stay.
SPARSE = (
    """
name: "sparse"
layer {
  name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {
    shape { dim: 2 dim: 20 } shape { dim: 2 dim: 4 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "gaussian" std: 1 }
  }
}"""
    + "".join(
        f"""
layer {{
  name: "ip{number}" type: "InnerProduct" bottom: "{bottom}" top: "ip{number}"
  inner_product_param {{
    num_output: {outputs}
    weight_filler {{ type: "gaussian" std: 0.3 sparse: 3 }}
    bias_filler {{ type: "constant" value: -0.0 }}
  }}
}}
layer {{ name: "relu{number}" type: "ReLU" bottom: "ip{number}" top: "ip{number}" }}"""
        for number, bottom, outputs in ((1, "data", 40), (2, "ip1", 30), (3, "ip2", 4))
    )
    + '\nlayer { name: "loss" type: "EuclideanLoss" bottom: "ip3" bottom: "target" top: "loss" }'
)


def in_net(path: str) -> Any:
    source = Path(path)
    return native(write_injected(resolve(source), source.parent / "run"))


@pytest.mark.parametrize("decay", [0, 0.004])
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_negative_zeros_stay_as_stock_caffe_leaves_them(
    workdir: Path, rule: str, decay: float
) -> None:
    fields = {"weight_decay": decay, "lr_policy": "step", "gamma": 0.5, "stepsize": 2}
    path = str(write_solver(workdir, SPARSE, type=rule, **{**fields, **RULES_OF_CAFFE[rule]}))
    expected = trail(native(path), 4)
    for weights in expected:
        zeros = [values[values == 0] for values in weights.values()]
        assert np.signbit(np.concatenate(zeros)).sum() > (100 if rule == "SGD" else 0)
    for make in (in_net, *PYTHON_HOSTS.values()):
        found = [
            {name: values for name, values in weights.items() if name in expected[0]}
            for weights in trail(make(path), 4)
        ]
        same_trails(expected, found)
