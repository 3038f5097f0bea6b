"""Small nets and solver files for the tests, with data that Caffe draws itself.

``DummyData`` refills its Gaussian blobs at every forward pass from Caffe's seeded generator: no
files, and the same numbers in every run with the same seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = """
layer {
  name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {
    shape { dim: 6 dim: 2 dim: 7 dim: 7 } shape { dim: 6 dim: 3 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "gaussian" std: 1 }
  }
}
"""

# Weights and bias with their own multipliers, a partial param, none at all, and a single blob.
SMALL = (
    'name: "small"'
    + DATA
    + """
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer {
  name: "hidden" type: "InnerProduct" bottom: "conv" top: "hidden"
  param { lr_mult: 0.5 }
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } }
}
layer { name: "tanh" type: "TanH" bottom: "hidden" top: "hidden" }
layer {
  name: "out" type: "InnerProduct" bottom: "hidden" top: "out"
  inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""
)

# The same data at every pass: a run that goes on from a snapshot can have the bits of one that was
# not stopped.
CONSTANT = """
name: "constant"
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 6 dim: 5 } shape { dim: 6 dim: 3 }
    data_filler { type: "constant" value: 0.3 } data_filler { type: "constant" value: 0.7 } } }
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 40 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "hidden" top: "hidden" }
layer { name: "out" type: "InnerProduct" bottom: "hidden" top: "out"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""

# Two branches that share both parameters by name, as a siamese net does.
SHARED = (
    'name: "shared"'
    + DATA
    + """
layer {
  name: "noise" type: "DummyData" top: "other"
  dummy_data_param { shape { dim: 6 dim: 2 dim: 7 dim: 7 } data_filler { type: "gaussian" std: 2 } }
}
layer {
  name: "left" type: "InnerProduct" bottom: "data" top: "left"
  param { name: "w" } param { name: "b" lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } }
}
layer {
  name: "right" type: "InnerProduct" bottom: "other" top: "right"
  param { name: "w" lr_mult: 3 } param { name: "b" lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } }
}
layer { name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum" }
layer {
  name: "out" type: "InnerProduct" bottom: "sum" top: "out"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""
)

# The sharer says that the parameter they share is frozen; the owner, which does not say, computes
# its gradient all the same, and clipping sees it.
SHARER_FREEZES = SHARED.replace('param { name: "w" lr_mult: 3 }', 'param { name: "w" lr_mult: 0 }')

# Two losses, one of them weighted and of many values; a score that is tested only.
LOSSES = SMALL.replace(
    'layer { name: "loss"',
    """
layer {
  name: "spread" type: "Power" bottom: "hidden" top: "spread" loss_weight: 0.03
  power_param { power: 2 scale: 0.5 }
}
layer {
  name: "score" type: "Reduction" bottom: "out" top: "score"
  include { phase: TEST } reduction_param { operation: MEAN }
}
layer { name: "loss\"""",
)

# BatchNorm keeps statistics in learnable parameters that it freezes itself; dropout draws numbers.
NORMALIZED = (
    'name: "normalized"'
    + DATA
    + """
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer {
  name: "old_norm" type: "BatchNorm" bottom: "norm" top: "old_norm"
  param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }
}
layer { name: "drop" type: "Dropout" bottom: "old_norm" top: "old_norm" }
layer {
  name: "frozen" type: "InnerProduct" bottom: "old_norm" top: "frozen"
  param { lr_mult: 0 } param { lr_mult: 0 decay_mult: 0 }
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } }
}
layer {
  name: "out" type: "InnerProduct" bottom: "frozen" top: "out"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""
)

# A layer per stage, and what two test nets see of them.
STAGED = (
    'name: "staged"'
    + DATA
    + """
layer {
  name: "wide" type: "InnerProduct" bottom: "data" top: "hidden"
  include { stage: "wide" not_stage: "narrow" } include { phase: TEST stage: "second" }
  inner_product_param { num_output: 9 weight_filler { type: "xavier" } }
}
layer {
  name: "narrow" type: "InnerProduct" bottom: "data" top: "hidden"
  exclude { stage: "wide" } exclude { phase: TEST stage: "second" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer {
  name: "extra" type: "InnerProduct" bottom: "hidden" top: "extra"
  include { min_level: 2 }
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer {
  name: "out" type: "InnerProduct" bottom: "hidden" top: "out"
  exclude { phase: TEST stage: "first" } exclude { phase: TEST stage: "second" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer {
  name: "out_test" type: "InnerProduct" bottom: "hidden" top: "out"
  include { phase: TEST }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""
)

# Caffe's solver types, each with what its solver needs or has of its own.
RULES_OF_CAFFE: dict[str, dict[str, Any]] = {
    "SGD": {},
    "Nesterov": {},
    "AdaGrad": {"momentum": 0},
    "RMSProp": {"momentum": 0, "rms_decay": 0.97},
    "AdaDelta": {"delta": 1e-6, "base_lr": 1},
    "Adam": {"momentum2": 0.995, "base_lr": 0.001},
}

# With these, the gradient of SMALL's second layer overflows in the third or so iteration.
EXPLODING = {"base_lr": 1e9, "momentum": 0, "weight_decay": 0, "max_iter": 12}

NETS = {
    "small": SMALL,
    "shared": SHARED,
    "sharer freezes": SHARER_FREEZES,
    "normalized": NORMALIZED,
}


def prototxt(fields: dict[str, Any]) -> str:
    """Return solver fields as prototxt; a list becomes a repeated field, an enum is a bare word."""
    lines = []
    for name, value in fields.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            lines.append(f"{name}: {_literal(name, item)}")
    return "\n".join(lines) + "\n"


def _literal(name: str, value: Any) -> str:
    if name in ("snapshot_format", "solver_mode", "solver_type"):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, (str, Path)) else str(value)


def write_solver(directory: Path, net: str = SMALL, name: str = "solver", **fields: Any) -> Path:
    """Write a net and a solver for it into a folder; return the solver file."""
    net_path = directory / f"{name}_net.prototxt"
    net_path.write_text(net)
    settings = {
        "net": net_path,
        "base_lr": 0.01,
        "lr_policy": "fixed",
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "max_iter": 20,
        "random_seed": 7,
        "snapshot_prefix": directory / name,
        "solver_mode": "CPU",
        **fields,
    }
    path = directory / f"{name}.prototxt"
    path.write_text(prototxt({k: v for k, v in settings.items() if v is not None}))
    return path
