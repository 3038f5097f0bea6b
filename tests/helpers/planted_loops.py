"""A hand-written update in plain pycaffe and NumPy, and faults to plant in it.

It knows nothing of the models that the diagnosis holds against it: float32 arrays, changed in
place, with an `if` for each fault, as somebody would have written it.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Tuple

import numpy as np

from caffe_pysgd.run.run import Run

Step = Callable[[Any], None]

# LeNet with everything that can be got wrong: multipliers of all kinds, decay, clipping, iter_size.
MULTIPLIERS = {
    "conv1": ((1, 1), (2, 0)),
    "conv2": ((1, 0.5), (2, 1)),
    "ip1": ((0.5, 1), (2, 0)),
    "ip2": ((1, 2), (1, 1)),
}
SETTINGS = """
net: "{net}"
base_lr: 0.05 lr_policy: "inv" gamma: 0.2 power: 0.75 {more}
weight_decay: 0.05 iter_size: 2 clip_gradients: 3.5
max_iter: 100 random_seed: 52 solver_mode: CPU
"""
MORE = {
    "SGD": 'type: "SGD" momentum: 0.9',
    "Nesterov": 'type: "Nesterov" momentum: 0.9',
    "SGD, L1": 'type: "SGD" momentum: 0.9 regularization_type: "L1"',
}


def write_lenet(
    directory: Path, mnist: Path, kind: str = "SGD", text: str = "", hidden: int = 500
) -> Path:
    """Write a LeNet of small batches with MULTIPLIERS; return the solver file."""
    net = (mnist / "examples/mnist/lenet_train_test.prototxt").read_text()
    net = net.replace("batch_size: 64", "batch_size: 8")
    net = net.replace("num_output: 500", f"num_output: {hidden}")
    for layer, multipliers in MULTIPLIERS.items():
        head, tail = net.split(f'name: "{layer}"', 1)
        for old, (lr, decay) in zip(("{ lr_mult: 1 }", "{ lr_mult: 2 }"), multipliers):
            tail = tail.replace(old, f"{{ lr_mult: {lr} decay_mult: {decay} }}", 1)
        net = f'{head}name: "{layer}"{tail}'
    net_path = directory / "lenet.prototxt"
    net_path.write_text(net.replace("examples/mnist/mnist", str(mnist / "examples/mnist/mnist")))
    path = directory / "solver.prototxt"
    path.write_text((text or SETTINGS).format(net=net_path, more=MORE[kind]))
    return path


# Faults that set the same switch, so that no loop has two of them.
SWITCHES = [
    ["wrong_sign"],
    ["applied_twice", "all_twice"],
    ["lr_mult_ignored"],
    ["momentum_missing", "momentum_damped"],
    ["history_reset", "history_shared"],
    ["rate_outside"],
    ["nesterov", "plain"],
    ["rate_fixed", "rate_early", "rate_late"],
    ["decay_missing", "decay_decoupled", "decay_subtracted"],
    ["decay_mult_ignored", "decay_on_biases", "decay_not_on_biases"],
    ["l1_for_l2", "l2_for_l1"],
    ["iter_size_missing", "iter_size_twice"],
    ["clip_missing", "clip_after_decay", "clip_after_iter_size", "clip_each"],
    ["diff_scaled_twice"],
    ["diffs_not_cleared", "diffs_cleared_between"],
    ["other_passes"],
    ["other_batch"],
    ["other_weights"],
    ["only_some_updated"],
]
ONLY_FOR = {"nesterov": ("SGD", "SGD, L1"), "plain": ("Nesterov",), "l2_for_l1": ("SGD, L1",),
            "l1_for_l2": ("SGD", "Nesterov")}  # fmt: skip


def alone(kind: str) -> List[str]:
    """Return all faults that a loop for this kind of solver can have."""
    return [f for switch in SWITCHES for f in switch if kind in ONLY_FOR.get(f, tuple(MORE))]


def pairs(kind: str) -> List[Tuple[str, str]]:
    """Return all pairs of faults that one loop can have."""
    switch = {fault: number for number, switch in enumerate(SWITCHES) for fault in switch}
    return [pair for pair in combinations(alone(kind), 2) if switch[pair[0]] != switch[pair[1]]]


def by_hand(run: Run, *planted: str) -> Step:
    """Return a loop for a run of type SGD or Nesterov, with the planted faults."""
    return _ByHand(run, frozenset(planted)).step


class _ByHand:
    def __init__(self, run: Run, planted: FrozenSet[str]) -> None:
        self.h, self.planted = run.h, planted
        self.parameters = run.parameters
        self.nesterov = (run.solver.type == "Nesterov") != bool(planted & {"nesterov", "plain"})
        self.v: Dict[Any, np.ndarray] = {}
        self.buffer = np.zeros(max(int(np.prod(p.shape)) for p in run.parameters), np.float32)
        self.iteration = 0

    def step(self, solver: Any) -> None:
        net = solver.net
        blobs = [net.params[p.layer][p.index] for p in self.parameters]
        self.compute_diffs(net, solver)
        if "history_reset" in self.planted:
            self.v, self.buffer = {}, np.zeros_like(self.buffer)
        diffs = [np.array(blob.diff) for blob in blobs]
        self.update(blobs)
        if "all_twice" in self.planted:
            for blob, diff in zip(blobs, diffs):
                blob.diff[...] = diff
            self.update(blobs)
        self.iteration += 1

    def compute_diffs(self, net: Any, solver: Any) -> None:
        if "other_weights" in self.planted and self.iteration == 0:
            net.params["ip2"][0].data[...] *= 1.01
        if "other_batch" in self.planted:
            net.forward()
        if "diffs_not_cleared" not in self.planted:
            net.clear_param_diffs()
        for _ in range(1 if "other_passes" in self.planted else self.h.iter_size):
            if "diffs_cleared_between" in self.planted:
                net.clear_param_diffs()
            net.forward()
            net.backward()

    def rate(self) -> float:
        h, i = self.h, self.iteration
        if "rate_fixed" in self.planted:
            return float(h.base_lr)
        if "rate_early" in self.planted:
            i += 1
        if "rate_late" in self.planted:
            i = max(i - 1, 0)
        return float(h.base_lr) * (1 + float(h.gamma) * i) ** -float(h.power)

    def decay_of(self, parameter: Any) -> float:
        decay, bias = float(self.h.weight_decay), parameter.index == 1
        if "decay_missing" in self.planted:
            return 0.0
        if bias and "decay_not_on_biases" in self.planted:
            return 0.0
        if bias and "decay_on_biases" in self.planted and parameter.decay_mult == 0:
            return decay
        if "decay_mult_ignored" in self.planted:
            return decay
        return decay * parameter.decay_mult

    def penalty(self, parameter: Any, blob: Any) -> Any:
        l1 = (self.h.regularization_type == "L1") != bool(self.planted & {"l1_for_l2", "l2_for_l1"})
        decay = np.float32(self.decay_of(parameter))
        return decay * (np.sign(blob.data) if l1 else blob.data)

    def clip(self, blobs: List[Any]) -> None:
        for group in [[blob] for blob in blobs] if "clip_each" in self.planted else [blobs]:
            l2norm = np.sqrt(sum((blob.diff**2).sum() for blob in group))
            if l2norm > self.h.clip_gradients:
                for blob in group:
                    blob.diff[...] *= np.float32(self.h.clip_gradients / l2norm)

    def divide(self, blobs: List[Any]) -> None:
        for blob in blobs:
            if "iter_size_missing" not in self.planted:
                blob.diff[...] /= self.h.iter_size
            if "iter_size_twice" in self.planted:
                blob.diff[...] /= self.h.iter_size

    def decay(self, blobs: List[Any]) -> None:
        if "decay_decoupled" in self.planted:
            return
        for parameter, blob in zip(self.parameters, blobs):
            if "decay_subtracted" in self.planted:
                blob.diff[...] -= self.penalty(parameter, blob)
            else:
                blob.diff[...] += self.penalty(parameter, blob)

    def update(self, blobs: List[Any]) -> None:
        stages = [self.clip, self.divide, self.decay]
        if "clip_missing" in self.planted:
            stages = [self.divide, self.decay]
        if "clip_after_iter_size" in self.planted:
            stages = [self.divide, self.clip, self.decay]
        if "clip_after_decay" in self.planted:
            stages = [self.divide, self.decay, self.clip]
        for stage in stages:
            stage(blobs)
        momentum = np.float32(0 if "momentum_missing" in self.planted else self.h.momentum)
        for parameter, blob in zip(self.parameters, blobs):
            if "only_some_updated" in self.planted and parameter.index == 1:
                continue
            self.update_one(parameter, blob, momentum)

    def update_one(self, parameter: Any, blob: Any, momentum: np.float32) -> None:
        lr_mult = 1 if "lr_mult_ignored" in self.planted else parameter.lr_mult
        rate = np.float32(self.rate() * lr_mult)
        if "diff_scaled_twice" in self.planted:
            blob.diff[...] *= rate
        v = self.history(parameter, blob)
        before = v.copy()
        damping = np.float32(1) - momentum if "momentum_damped" in self.planted else np.float32(1)
        outside = "rate_outside" in self.planted
        v *= momentum
        v += damping * (blob.diff if outside else rate * blob.diff)
        value = (1 + momentum) * v - momentum * before if self.nesterov else v.copy()
        if outside:
            value = rate * value
        if "decay_decoupled" in self.planted:
            blob.data[...] -= rate * self.penalty(parameter, blob)
        if "applied_twice" in self.planted:
            blob.data[...] -= value
        if "wrong_sign" in self.planted:
            blob.data[...] += value if "applied_twice" not in self.planted else 3 * value
        else:
            blob.data[...] -= value

    def history(self, parameter: Any, blob: Any) -> np.ndarray:
        if "history_shared" in self.planted:
            return self.buffer[: blob.count].reshape(blob.data.shape)
        return self.v.setdefault(parameter.name, np.zeros_like(blob.data))
