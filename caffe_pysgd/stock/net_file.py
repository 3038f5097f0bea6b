"""Net files, and which of their layers a net state includes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Sequence

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.prototxt import read_text


def read_net(path: Path) -> Any:
    """Return the ``NetParameter`` in a file.

    Raises:
        UserError: the file does not parse or is in a format older than Caffe 1.0's.
    """
    net = read_text(path, pycaffe.messages().NetParameter())
    if net.layers:
        raise UserError(
            f"{path}: uses the old 'layers {{ }}' format; upgrade it with "
            f"'upgrade_net_proto_text {path} NEW.prototxt' and give the new file"
        )
    return net


def included_layers(net: Any, state: Any) -> List[Any]:
    """Return the layers that ``Net::FilterNet`` keeps; they are the net's own messages.

    Raises:
        UserError: a layer has both include and exclude rules.
    """
    return [layer for layer in net.layer if _included(layer, state)]


def included_places(net: Any, state: Any) -> List[int]:
    """Return the places, in the file, of the layers that a net has in a state."""
    return [place for place, layer in enumerate(net.layer) if _included(layer, state)]


def replace_layers(net: Any, layers: Sequence[Any]) -> None:
    """Give a ``NetParameter`` other layers, among which may be its own."""
    # Copies: what a message is once its list is emptied, not every protobuf says.
    copies = [type(layer).FromString(layer.SerializeToString()) for layer in layers]
    del net.layer[:]
    net.layer.extend(copies)


def _included(layer: Any, state: Any) -> bool:
    if layer.include and layer.exclude:
        raise UserError(f"layer '{layer.name}': give include rules or exclude rules, not both")
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: Any, rule: Any) -> bool:
    """``Net::StateMeetsRule``: all that the rule says must hold."""
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )
