"""Taps: which layers' tops the recorder wants to see, and a net with a tap behind each.

A tap stands behind its layer in place, under the same include and exclude rules, and takes its loss
weight over. So no Split layer is needed, the outputs keep their names and the loss its bits.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from caffe_pysgd.run.settings import MODULE
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.net_file import included_places, replace_layers

PREFIX = "pysgd_tap_"

# Layers whose first top has the loss weight 1 where the prototxt says nothing.
_LOSS_LAYERS = (
    "ContrastiveLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss", "SoftmaxWithLoss",
)  # fmt: skip

_Top = Tuple[int, int]  # number of the layer, number of the top


class Tapped(NamedTuple):
    """A net with taps.

    Attributes:
        net: the ``NetParameter``, a copy.
        complete: whether the taps see all of the train net's loss.
        outputs: the names of the test nets' outputs that they see.
    """

    net: Any
    complete: bool
    outputs: Set[str]


def test_states(solver: Any) -> Dict[int, Any]:
    """Return the states of the test nets that are written in the train net's file, by number."""
    if not (solver.HasField("net") or solver.HasField("net_param")):
        return {}
    others = len(solver.test_net) + len(solver.test_net_param)
    return {number: _test_state(solver, number) for number in range(others, len(solver.test_iter))}


def _test_state(solver: Any, number: int) -> Any:
    state = type(solver.train_state)()
    state.phase = pycaffe.messages().TEST
    if solver.test_state:
        state.MergeFrom(solver.test_state[number])
    return state


def add_taps(net: Any, state: Any, solver: Any, file: str) -> Tapped:
    """Return a net with a tap behind every layer that has a loss or a test score.

    A top that another layer uses gets no tap: that would change what Caffe makes of the net. Nor
    does an output that comes straight from the data.

    Args:
        net: the train net's ``NetParameter``, with the test nets' layers.
        state: the train net's ``NetState``.
        solver: the ``SolverParameter``.
        file: the audit for which this is done.
    """
    tests = test_states(solver)
    for number, test_state in tests.items():
        merged = type(test_state)()
        merged.phase = test_state.phase
        merged.MergeFrom(net.state)
        merged.MergeFrom(test_state)
        tests[number] = merged
    train = included_places(net, state)
    test = {number: included_places(net, one) for number, one in tests.items()}
    used = _used(net, train).union(*(_used(net, one) for one in test.values()))
    plans = _plans(net, set(train), test, used)
    complete = all(_without_loss(net.layer[n]) or n in plans for n in train)
    wanted = {
        number: sorted({net.layer[n].top[t] for n in included if n in plans for t in plans[n]})
        for number, included in test.items()
    }
    tapped = type(net)()
    tapped.CopyFrom(net)
    layers = []
    for number, layer in enumerate(tapped.layer):
        layers.append(layer)
        if number in plans:
            nets = [n for n, included in test.items() if number in included]
            told = {
                "file": file,
                "layer": layer.name,
                "nets": nets,
                "batches": {n: solver.test_iter[n] for n in nets},
                "outputs": {n: wanted[n] for n in nets},
            }
            layers.append(_tap(layer, plans[number], told))
    replace_layers(tapped, layers)
    return Tapped(tapped, complete, {name for names in wanted.values() for name in names})


def _used(net: Any, included: List[int]) -> Set[_Top]:
    """Return the tops that another layer of a net uses, in place or not."""
    made: Dict[str, _Top] = {}
    used: Set[_Top] = set()
    for number in included:
        layer = net.layer[number]
        used.update(made[name] for name in layer.bottom if name in made)
        made.update({name: (number, top) for top, name in enumerate(layer.top)})
    return used


def _plans(
    net: Any, train: Set[int], test: Dict[int, List[int]], used: Set[_Top]
) -> Dict[int, List[int]]:
    """Return the layers to tap, each with the numbers of the tops."""
    tested = {number for included in test.values() for number in included}
    plans = {}
    for number in sorted(train | tested):
        layer = net.layer[number]
        weights = _loss_weights(layer)
        tops = [t for t in range(len(layer.top)) if (number, t) not in used]
        if not tops or not layer.bottom or weights is None:
            continue
        weighted = [t for t, weight in enumerate(weights) if weight]
        if set(weighted) - set(tops):
            continue
        if number in tested or weighted:
            plans[number] = tops
    return plans


def _loss_weights(layer: Any) -> Optional[List[float]]:
    """Return the loss weights that Caffe will use; None where the prototxt does not tell."""
    if layer.loss_weight:
        return list(layer.loss_weight)
    if layer.type in _LOSS_LAYERS:
        return [1.0]
    return None if layer.type.endswith("Loss") else []


def _without_loss(layer: Any) -> bool:
    weights = _loss_weights(layer)
    return weights is not None and not any(weights)


def _tap(layer: Any, tops: List[int], told: Dict[str, Any]) -> Any:
    """Return the tap behind a layer, and take the loss weights from that."""
    weights = _loss_weights(layer) or []
    names = [layer.top[top] for top in tops]
    own = [weights[top] if top < len(weights) else 0.0 for top in tops]
    tap = type(layer)()
    tap.name, tap.type = f"{PREFIX}{layer.name}", "Python"
    tap.bottom.extend(names)
    tap.top.extend(names)
    tap.include.extend(layer.include)
    tap.exclude.extend(layer.exclude)
    if any(own):
        tap.loss_weight.extend(own)
        del layer.loss_weight[:]
        layer.loss_weight.extend([0.0] * len(weights))
    tap.python_param.module, tap.python_param.layer = MODULE, "Tap"
    tap.python_param.param_str = json.dumps({**told, "tops": names, "weights": own})
    return tap


def remove_taps(layers: List[Any]) -> List[Any]:
    """Return the layers of a model without the taps, their loss weights given back."""
    kept = [layer for layer in layers if not layer.name.startswith(PREFIX)]
    for tap in layers:
        if tap.name.startswith(PREFIX) and tap.loss_weight:
            weights = dict(zip(tap.top, tap.loss_weight))
            for layer in kept:
                if f"{PREFIX}{layer.name}" == tap.name and set(tap.top) <= set(layer.top):
                    del layer.loss_weight[:]
                    layer.loss_weight.extend([weights.get(top, 0.0) for top in layer.top])
    return kept
