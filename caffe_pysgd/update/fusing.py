"""The parameters that compiled passes take through the whole update, and those that none can."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.update.fused import FusedKernels, FusedUpdate, Leaves, Untraceable
from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import Kernels
from caffe_pysgd.update.learning_rates import Rates
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules.checked import is_own, name_of, not_finite
from caffe_pysgd.update.self_check import first_difference
from caffe_pysgd.update.stages import Clipping, clip_values, clips_values
from caffe_pysgd.update.statistics import Statistics

F = np.float32
ONE = F(1)

Figures = Dict[str, Statistics]


class Fusing:
    """Fused updates of groups of parameters: of those with one rule and one kind of weight decay.

    Args:
        kernels: which make them.
    """

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._of: Sequence[Parameter] = ()
        self._fused: List[Tuple[FusedUpdate, List[Parameter], Any]] = []
        self._others: List[Parameter] = []

    def prepare(self, parameters: Sequence[Parameter]) -> None:
        """Fuse what can be fused of these parameters."""
        self._of, self._fused, self._others = parameters, [], []
        alike: Dict[Tuple[str, str], List[int]] = {}
        for number, p in enumerate(parameters):
            alike.setdefault((name_of(p.rule), p.h.regularization_type), []).append(number)
        for (name, decay), numbers in alike.items():
            group = [parameters[number] for number in numbers]
            fused = self._fuse(name, decay, group)
            if fused:
                self._fused.append((fused, group, numbers if len(alike) > 1 else slice(None)))
            else:
                self._others.extend(group)

    def _fuse(self, name: str, decay: str, group: List[Parameter]) -> Optional[FusedUpdate]:
        rule = group[0].rule
        fused = self._kernels.fuse(name, rule, group, checked=not is_own(rule))
        if fused and isinstance(self._kernels, FusedKernels):
            try:
                found = first_difference(self._kernels, name, rule, group[0].h, decay)
                reason = f"its pass fails the self-check: {found}" if found else ""
            except Untraceable as error:
                reason = str(error)
            if reason:
                self._kernels.unfused[name] = reason
                return None
        return fused

    def update(
        self,
        parameters: Sequence[Parameter],
        rates: Rates,
        h: HyperParameters,
        clipping: Optional[Clipping],
        leaves: Leaves,
        measuring: bool,
    ) -> Tuple[List[Parameter], Dict[str, Figures]]:
        """Update what can be; return the other parameters, and figures by name, where wanted.

        Args:
            parameters: which are updated.
            rates: of all parameters.
            h: the common hyper-parameters.
            clipping: what ``clip_gradients`` does to all gradients.
            leaves: what is left in the diffs.
            measuring: whether figures are wanted.

        Raises:
            UserError: a user's own rule returned something that is not finite.
        """
        if parameters != self._of:
            self.prepare(parameters)
        local, common = rates.of(parameters), rates.schedule.value
        factor = clipping.scale_factor if clipping else ONE
        left, figures = list(self._others), {}
        for fused, group, numbers in self._fused:
            raw = self._clip_values(group, h, common, measuring)
            own, iteration = local[numbers], group[0].iteration
            try:
                fused.run(own, iteration, factor, ONE / F(h.iter_size), leaves, measuring)
            except Untraceable as reason:  # from this iteration on; nothing was updated yet
                self._kernels.unfused[name_of(group[0].rule)] = str(reason)
                self._of = ()
                left += group
                continue
            _refuse_unfit(fused, group)
            if measuring:
                for p, taken, gradient in zip(group, fused.figures(), raw):
                    figures[p.name] = {**taken, **gradient}
        return left, figures

    def _clip_values(
        self, group: List[Parameter], h: HyperParameters, rate: np.float32, measuring: bool
    ) -> List[Figures]:
        """Clip by value, which no pass does; return the figures of the gradients before that."""
        if not clips_values(h):
            return [{}] * len(group)
        raw: List[Figures] = []
        for p in group:
            raw.append({"gradient": self._kernels.statistics(p.diff)} if measuring else {})
            clip_values(p, h, rate)
        return raw


def _refuse_unfit(fused: FusedUpdate, group: List[Parameter]) -> None:
    """Refuse an update of a user's rule that is not finite, as ``call`` does.

    Raises:
        UserError: naming rule, parameter and iteration.
    """
    unfit = fused.unfit()
    if unfit:
        p = group[unfit.row]
        update = -p.data[unfit.first]  # the weight was finite, so this is what it lost
        raise not_finite(p.rule, p, unfit.values, unfit.first, update, unfit.gradient)
