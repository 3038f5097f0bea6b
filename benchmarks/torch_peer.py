"""PyTorch's side of the comparison: a process that does one optimiser step when it is told to.

It runs in a Python of its own (torch_venv.py), knows nothing of this project, and talks in lines
of JSON: first `build`, then any number of `step`, then perhaps another `build`.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import Any, Dict, List

import torch


class Bench:
    """Tensors of some shapes, and optimisers of them: the default one, and where it is, the fused.

    Args:
        shapes: the weights and biases, in turn, as Caffe's layers have them.
        optimizer: the class's name.
        options: what it takes beside the rate and the decay.
        rate, decay: those; biases take twice the rate and no decay.
    """

    def __init__(
        self,
        shapes: List[List[int]],
        optimizer: str,
        options: Dict[str, Any],
        rate: float,
        decay: float,
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        self.parameters = [torch.nn.Parameter(torch.full(shape, 0.01)) for shape in shapes]
        self.gradients = [torch.randn(shape, generator=generator) * 0.01 for shape in shapes]
        for parameter in self.parameters:
            parameter.grad = torch.empty_like(parameter)
        weights, biases = self.parameters[0::2], self.parameters[1::2]

        def make(**more: Any) -> Any:
            # An optimiser writes into the groups that it is given: to each its own.
            groups = [
                {"params": weights, "lr": rate, "weight_decay": decay},
                {"params": biases, "lr": 2 * rate, "weight_decay": 0},
            ]
            return getattr(torch.optim, optimizer)(groups, **options, **more)

        self.optimizers = {"default": make()}
        with suppress(TypeError, RuntimeError):  # there is no such argument, or not on a CPU
            self.optimizers["fused"] = make(fused=True)

    def step(self, which: str) -> float:
        """Return the seconds of one step."""
        for parameter, gradient in zip(self.parameters, self.gradients):
            parameter.grad.copy_(gradient)
        began = time.perf_counter()
        self.optimizers[which].step()
        return time.perf_counter() - began


def main() -> None:
    """Answer requests until there are no more."""
    say({"version": torch.__version__, "threads": torch.get_num_threads()})
    bench = None
    for line in sys.stdin:
        request = json.loads(line)
        if "build" in request:
            bench = None  # the old one's memory goes before the new one's is taken
            bench = Bench(**request["build"])
            say({"optimizers": list(bench.optimizers)})
        else:
            say({"seconds": bench.step(request["step"])})


def say(answer: Dict[str, Any]) -> None:
    """Answer one request."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
