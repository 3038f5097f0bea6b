"""What takes turns at an update: the native solver, this project's kernels, PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np
from nets import two_squares, write_net
from settings import BASE_LR, WEIGHT_DECAY, Settings
from torch_venv import TorchPeer
from turns import Contestant, timed

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import (
    HyperParameters,
    Observer,
    Parameter,
    Updater,
    make_kernels,
    make_rule,
)

F = np.float32

CAFFE, NUMPY, NATIVE, FUSED, FAST = "caffe", "numpy", "native", "fused", "fused, exact: false"
KERNELS = {
    NUMPY: ("numpy", True),
    NATIVE: ("native", True),
    FUSED: ("fused", True),
    FAST: ("fused", False),
}
LEAVES_UPDATE, LEAVES_ZEROS, FIGURES = ", leaves the update", ", leaves zeros", ", figures"
RESTED = ", rested"
TORCH = "torch "


class TakesFigures(Observer):
    """Has the figures of every array taken in the same pass, as the audit does."""

    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return True


class Problem:
    """The parameters of one size, and all who update them.

    This project's contestants share one set of arrays. That is no advantage to those who come
    later: between any two turns the caches are swept by the copy.

    Args:
        settings: the rule.
        width: that of the two square layers.
        folder: for the native solver's files.
    """

    def __init__(self, settings: Settings, width: int, folder: Path) -> None:
        self.settings, self.width = settings, width
        self.solver = native_solver(settings, width, folder)
        self.solver.net.forward()
        self.blobs = [blob for layer in self.solver.net.layers for blob in layer.blobs]
        generator = np.random.default_rng(1)
        self.gradients = [generator.standard_normal(blob.count, F) * F(0.01) for blob in self.blobs]
        h = HyperParameters(**settings.hyperparameters)
        rule = make_rule(settings.rule)
        self.parameters = [
            Parameter(
                str(number), np.full(g.size, F(0.01)), g.copy(), 1 + number % 2, 1 - number % 2
            )
            for number, g in enumerate(self.gradients)
        ]
        states = [{slot: np.full(g.size, F(0)) for slot in rule.slots} for g in self.gradients]
        self._updaters = {
            name: Updater(
                self.parameters,
                h,
                rule,
                make_kernels(kernels, pycaffe.library_path(), exact),
                states,
            )
            for name, (kernels, exact) in KERNELS.items()
        }

    @property
    def values(self) -> int:
        """How many values the parameters have."""
        return sum(gradient.size for gradient in self.gradients)

    def contestants(self) -> List[Contestant]:
        """Return the native solver, and this project's kernels in all the ways there are."""
        natively = lambda: timed(self.solver.apply_update)  # noqa: E731
        found = [Contestant(CAFFE, self._fill_blobs, natively)]
        names = [name for name in KERNELS if name != FAST or self.settings.takes_powers]
        found += [self._contestant(name, name) for name in names]
        for name in names[names.index(FUSED) :]:
            found.append(self._contestant(name + LEAVES_ZEROS, name, clears_diffs=True))
            found.append(self._contestant(name + LEAVES_UPDATE, name, keeps_update=True))
            found.append(self._contestant(name + RESTED, name, rested=True))
        found.append(self._contestant(FUSED + FIGURES, FUSED, figures=True))
        return found

    def _contestant(
        self,
        name: str,
        kernels: str,
        clears_diffs: bool = False,
        keeps_update: bool = False,
        figures: bool = False,
        rested: bool = False,
    ) -> Contestant:
        updater, observers = self._updaters[kernels], [TakesFigures()] if figures else []
        iteration = 0

        def update() -> float:
            nonlocal iteration
            updater.clears_diffs, updater.keeps_update = clears_diffs, keeps_update
            updater.observers[:] = observers
            iteration += 1
            return timed(lambda: updater.step(iteration))

        return Contestant(name, self._fill_parameters, update, rested)

    def backward(self) -> None:
        """Do a backward pass of the native solver's net."""
        self.solver.net.backward()

    def _fill_blobs(self) -> None:
        for blob, gradient in zip(self.blobs, self.gradients):
            np.copyto(blob.diff.reshape(-1), gradient)

    def _fill_parameters(self) -> None:
        for parameter, gradient in zip(self.parameters, self.gradients):
            np.copyto(parameter.diff, gradient)

    def torch_contestants(self, peer: TorchPeer) -> List[Contestant]:
        """Return PyTorch's optimisers, on parameters of the same shapes."""
        optimizers = peer.build(
            shapes=[[self.width, self.width], [self.width]] * 2,
            optimizer=self.settings.optimizer,
            options=self.settings.options,
            rate=BASE_LR,
            decay=WEIGHT_DECAY,
        )
        return [
            Contestant(TORCH + name, lambda: None, lambda name=name: peer.step(name))
            for name in optimizers
        ]


def native_solver(settings: Settings, width: int, folder: Path) -> Any:
    """Return Caffe's own solver of two square layers."""
    net, solver = folder / "squares.prototxt", folder / "solver.prototxt"
    write_net(net, two_squares(width))
    lines = {"net": f'"{net}"', "type": f'"{settings.solver_type}"', "lr_policy": '"fixed"'}
    fields: Dict[str, object] = {**lines, **settings.hyperparameters}
    solver.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    return pycaffe.package().get_solver(str(solver))
