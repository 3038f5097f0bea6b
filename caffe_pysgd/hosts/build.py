"""From settings and a net's blobs to an updater: what the three hosts have in common."""

from __future__ import annotations

import os
import sys
from typing import Dict, List, Optional, Sequence

from caffe_pysgd.arrays import Floats
from caffe_pysgd.run.settings import UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Values
from caffe_pysgd.update import (
    NATIVE_NAMES,
    HyperParameters,
    Observer,
    Parameter,
    Updater,
    make_rule,
)
from caffe_pysgd.update.kernel_choice import make_kernels
from caffe_pysgd.update.policies import caffe_knows_the_rate

States = List[Dict[str, Floats]]


def build_updater(
    settings: UpdateSettings,
    blobs: Sequence[Values],
    states: Optional[States] = None,
    observers: Sequence[Observer] = (),
    clears_diffs: bool = False,
) -> Updater:
    """Return an updater of the parameters in a net's blobs.

    Args:
        settings: what is to be done.
        blobs: the learnable parameters' blobs, in Caffe's order.
        states: the state slots, where the host keeps them; fresh ones if not given.
        observers: hear of every stage.
        clears_diffs: leave nothing for a native update to do.

    Raises:
        UserError: a rule of the user's own is not there, or refuses its hyper-parameters.
        MissingSymbols: the kernels that were asked for are not there.
    """
    let_import(settings)
    rules = {p.rule: make_rule(p.rule) for p in settings.parameters}
    parameters = [
        Parameter(
            p.name,
            blob.data.reshape(-1),
            blob.diff.reshape(-1),
            p.lr_mult,
            p.decay_mult,
            rules[p.rule],
            HyperParameters(**{**settings.hyperparameters, **p.hyperparameters}),
            p.freeze_until,
            p.freeze_from,
        )
        for p, blob in zip(settings.parameters, blobs)
    ]
    updater = Updater(
        parameters,
        HyperParameters(**settings.hyperparameters),
        make_rule(settings.rule),
        make_kernels(settings.kernels, pycaffe.library_path(), settings.exact),
        states=states,
        observers=observers,
        clears_diffs=clears_diffs,
    )
    updater.prepare()
    return updater


def let_import(settings: UpdateSettings) -> None:
    """Let the modules of the user's own be found."""
    if settings.module_path and (path := os.path.abspath(settings.module_path)) not in sys.path:
        sys.path.insert(0, path)


def announcement(settings: UpdateSettings, updater: Updater, state: str) -> str:
    """Return the line in Caffe's log that says what was taken over."""
    rules = list(dict.fromkeys(p.rule for p in settings.parameters))
    kernels, values = updater.kernels, sum(p.count for p in settings.parameters)
    bits = " (the native solver's bits)" if kernels.exact and _caffes_own(rules, updater) else ""
    unfused = "".join(f" ({rule} not fused: {why})" for rule, why in kernels.unfused.items())
    return (
        f"caffe-pysgd: Python owns the update: rule {', '.join(rules)}, "
        f"{len(settings.parameters)} parameters, {values} values, "
        f"kernels {kernels.name}{unfused}{bits}, state {state}"
    )


def _caffes_own(rules: Sequence[str], updater: Updater) -> bool:
    return (
        NATIVE_NAMES.issuperset(rules)
        and caffe_knows_the_rate(updater.h)
        and not any(p.h.unknown_to_caffe() for p in updater.parameters)
    )


def clipping_line(updater: Updater) -> Optional[str]:
    """Return what Caffe's ``ClipGradients`` logs, if the last update clipped."""
    clipping = updater.clipping
    if clipping is None:
        return None
    return (
        f"Gradient clipping: scaling down gradients (L2 norm {clipping.l2norm_diff:g} > "
        f"{updater.h.clip_gradients:g}) by scale factor {clipping.scale_factor:g}"
    )
