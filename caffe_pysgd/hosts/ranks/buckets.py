"""Where in a net gradients are complete while backward still runs, and can be sent."""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Sequence, Set

from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import MODULE, RankSettings
from caffe_pysgd.stock.net_file import included_places, replace_layers

PREFIX = "pysgd_send_"


class WithSenders(NamedTuple):
    """A net that tells when gradients are complete.

    Attributes:
        net: the ``NetParameter``, a copy.
        settings: what the ranks are told: for each bucket, in the order of backward, its
            parameters, and the layer with which it is complete.
    """

    net: Any
    settings: RankSettings


def add_senders(net: Any, run: Run) -> WithSenders:
    """Return a net with a layer, in place, wherever a bucket of gradients is complete.

    Backward runs through the layers in reverse. When it comes to a sender, it has been through all
    layers behind that, and their gradients, unless a layer before it shares them, are complete.

    Args:
        net: the train net's ``NetParameter``, with or without taps.
        run: whose net it is; its configuration says how many bytes a bucket has at least, 0 for no
            senders.
    """
    options, parameters = run.configuration.ranks, run.parameters
    copy = type(net)()
    copy.CopyFrom(net)
    members: List[List[int]] = []
    before: List[str] = []
    numbers = included_places(copy, run.state)
    layers = [copy.layer[number] for number in numbers]
    places = {layer.name: place for place, layer in enumerate(layers)}
    first = [
        min(places[name] for name in (p.layer, *(sharer[0] for sharer in p.sharers)))
        for p in parameters
    ]
    senders: Dict[int, Any] = {}
    bucket: List[int] = []
    for place in range(len(layers) - 1, -1, -1):
        bucket += [number for number, its in enumerate(first) if its == place]
        size = sum(4 * math.prod(parameters[number].shape) for number in bucket)
        blob = _free_bottom(layers, place)
        if (
            options.bucket_bytes
            and size >= options.bucket_bytes
            and blob
            and any(its < place for its in first)
        ):
            senders[numbers[place]] = _sender(layers[place], blob, len(members))
            members.append(bucket)
            before.append(layers[place].name)
            bucket = []
    with_senders: List[Any] = []
    for number, layer in enumerate(copy.layer):
        if number in senders:
            with_senders.append(senders[number])
        with_senders.append(layer)
    replace_layers(copy, with_senders)
    settings = RankSettings(
        options.count,
        options.timeout,
        options.check_every,
        run.solver.random_seed,
        tuple(map(tuple, members)),
        tuple(before),
    )
    return WithSenders(copy, settings)


def _free_bottom(layers: Sequence[Any], place: int) -> str:
    """Return a bottom of a layer that a layer in place may stand in front of, or nothing.

    Nobody but layers in place may have used it before: they would get a split of it.
    """
    for blob in layers[place].bottom:
        users: Set[bool] = {blob in layer.top for layer in layers[:place] if blob in layer.bottom}
        made = [layer for layer in layers[:place] if blob in layer.top]
        if made and made[0].bottom and not made[-1].loss_weight and users <= {True}:
            return str(blob)
    return ""


def _sender(layer: Any, blob: str, number: int) -> Any:
    sender = type(layer)()
    sender.name, sender.type = f"{PREFIX}{layer.name}", "Python"
    sender.bottom.append(blob)
    sender.top.append(blob)
    sender.include.add(phase=0)  # TRAIN
    sender.python_param.module, sender.python_param.layer = MODULE, "Sender"
    sender.python_param.param_str = str(number)
    return sender
