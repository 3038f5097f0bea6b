"""How fast the fused rules are that Caffe never got: time per byte, as a ratio to SGD's.

    python benchmarks/beyond.py [--values 33.6e6] [--rounds 9]

The bytes are those of the arrays that a rule touches, each counted once for each time that it is
read or written; a norm that has to be known first takes a pass of its own, which is not counted.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
from machine import describe
from raw_figures import write_figures
from settings import arrays_touched
from tables import median_ratio
from turns import Contestant, take_turns, timed

import caffe_pysgd
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import RULES, HyperParameters, Parameter, Updater, make_kernels

F = np.float32
ADAM = {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8}


class Signum(caffe_pysgd.UpdateRule):  # type: ignore[misc]
    """A rule of a user's own."""

    slots = ("momentum",)

    def update(self, p: Any) -> np.ndarray:
        """Return the sign of the momentum, times the rate."""
        momentum = p.state["momentum"]
        momentum *= p.h.momentum
        momentum += (F(1) - p.h.momentum) * p.gradient
        return p.rate * np.sign(momentum)


MEASURED: Dict[str, Any] = {
    "SGD": RULES["sgd"],
    "PyTorchSGD": RULES["pytorch_sgd"],
    "SGDW": RULES["sgdw"],
    "Signum (own)": Signum,
    "Lion": RULES["lion"],
    "AdamW": RULES["adamw"],
    "AMSGrad": RULES["amsgrad"],
    "NAdam": RULES["nadam"],
    "Adamax": RULES["adamax"],
    "LARS": RULES["lars"],
    "LAMB": RULES["lamb"],
}


def main() -> None:
    """Let all rules take turns on the same arrays."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--values", type=float, default=33.6e6)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    options = parser.parse_args()
    seconds = take_turns(contestants(options.values), options.rounds)["seconds"]
    print(f"{options.values:.3g} values, medians of {options.rounds} rounds")
    ratios = {name: per_byte(seconds, name) for name in MEASURED}
    for name, ratio in ratios.items():
        milliseconds = 1e3 * statistics.median(seconds[name])
        print(f"{name:14}{milliseconds:7.1f} ms  {ratio:5.2f} of SGD's time per byte")
    write_figures(options.json, {"machine": describe(), "seconds": seconds, "per byte": ratios})


def per_byte(seconds: Dict[str, List[float]], name: str) -> float:
    """Return a rule's time for each byte that it must read or write, as a ratio to SGD's."""
    touched, of_sgd = (arrays_touched(len(MEASURED[n].slots), True) for n in (name, "SGD"))
    return median_ratio(seconds[name], seconds["SGD"]) * of_sgd / touched


def contestants(values: float) -> List[Contestant]:
    """Return the rules, all on the same weights, gradients and states."""
    width = round((values / 2) ** 0.5)
    sizes = [width * width, width] * 2
    rng = np.random.default_rng(1)
    gradients = [rng.standard_normal(size, F) * F(0.01) for size in sizes]
    parameters = [
        Parameter(f"w/{k}", np.full(g.size, F(0.01)), g.copy(), 1 + k % 2, 1 - k % 2)
        for k, g in enumerate(gradients)
    ]
    most = max(len(rule.slots) for rule in MEASURED.values())
    slots = [[np.zeros(size, F) for size in sizes] for _ in range(most)]

    def fill() -> None:
        for parameter, gradient in zip(parameters, gradients):
            np.copyto(parameter.diff, gradient)

    found = []
    for name, rule in MEASURED.items():
        states = [dict(zip(rule.slots, (slot[k] for slot in slots))) for k in range(len(sizes))]
        own = {"momentum": 0.9} if len(rule.slots) == 1 and name != "Lion" else ADAM
        h = HyperParameters(base_lr=F(1e-4), weight_decay=F(5e-4), **own)  # type: ignore[arg-type]
        kernels = make_kernels("fused", pycaffe.library_path())
        updater = Updater(parameters, h, rule(), kernels, states)
        updater.keeps_update = False
        updater.prepare()
        if kernels.unfused:
            raise SystemExit(f"{name} is not fused: {kernels.unfused}")
        found.append(Contestant(name, fill, _turn(updater)))
    return found


def _turn(updater: Updater) -> Any:
    iteration = 0

    def update() -> float:
        nonlocal iteration
        iteration += 1
        return timed(lambda: updater.step(iteration))

    return update


if __name__ == "__main__":
    main()
