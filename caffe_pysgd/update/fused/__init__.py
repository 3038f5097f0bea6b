"""Kernels that update a parameter in one pass over memory, compiled by LLVM; an optional extra.

Caffe's update walks over memory up to thirteen times and calls powf for each element. These take a
block of a parameter from its gradient to its new weights while it is in the cache, on all cores,
with the same bits: ``probe.py`` makes sure of that against Caffe's own functions at start-up.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional, Sequence

from caffe_pysgd.errors import UserError
from caffe_pysgd.update.fused import machine
from caffe_pysgd.update.fused.probe import rounds_once
from caffe_pysgd.update.fused.program import Program, Untraceable
from caffe_pysgd.update.fused.update import FusedUpdate, Leaves
from caffe_pysgd.update.kernels.caffe import CaffeKernels
from caffe_pysgd.update.parameter import Parameter


class FusedKernels(CaffeKernels):
    """Caffe's own vector operations, and a fused update for the rules that can be compiled.

    Args:
        library_path: a shared library through which Caffe's symbols resolve.
        exact: libm's powers; else the correctly rounded ones, faster still, not Caffe's bits.

    Raises:
        UserError: llvmlite is not there or does not work, or no pass rounds as this Caffe does.
        MissingSymbols: there is no Caffe whose bits these could be.
    """

    name = "fused"

    def __init__(self, library_path: Optional[str], exact: bool = True) -> None:
        super().__init__(library_path)
        reason = machine.why_not()
        if reason:
            raise UserError(f"kernels: fused: {reason}")
        self.exact = exact
        self.rounds_once = rounds_once(library_path)

    def fuse(
        self, name: str, rule: Any, parameters: Sequence[Parameter], checked: bool = False
    ) -> Optional[FusedUpdate]:
        if name in self.unfused:
            return None
        l1 = parameters[0].h.regularization_type == "L1"
        try:
            compiles = partial(self._compiled, l1=l1, checked=checked)
            return FusedUpdate(rule, parameters, compiles, checked)
        except Untraceable as reason:
            self.unfused[name] = str(reason)
        return None

    def _compiled(
        self, program: Program, scaled: bool, figures: bool, l1: bool, checked: bool
    ) -> Callable[..., None]:
        """Return a pass.

        Raises:
            Untraceable: it cannot be compiled.
        """
        how = self.rounds_once, self.exact
        try:
            return machine.load(machine.Variant(program, l1, scaled, *how, checked, figures))
        except Exception as error:  # a mix of versions can raise anything
            what = machine.in_one_line(error)
            raise Untraceable(f"its pass cannot be compiled: {what}") from error


__all__ = ["FusedKernels", "FusedUpdate", "Leaves", "Untraceable"]
