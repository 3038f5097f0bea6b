"""The learnable parameters of a train net, as Caffe itself sees them.

The prototxt does not say everything: shapes follow from the data, and a layer may set its own
multipliers (BatchNorm freezes its three blobs). So a net that Caffe has built is asked. Caffe
builds the solver's nets in a process of its own first, because an error in one of them, or in what
the solver says of them, makes it abort.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Sequence, Set, Tuple

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock.built_nets import built, described
from caffe_pysgd.stock.net_file import included_layers
from caffe_pysgd.stock.protocols import Net

_MULTIPLIERS = {"lr_mult", "decay_mult"}


@dataclass(frozen=True)
class LearnableParameter:
    """One learnable parameter: where it lives, how it is shared, what multiplies its rate.

    Attributes:
        layer: the name of the layer that owns it.
        index: its place among the layer's blobs.
        shape: as Caffe built it.
        sharing_name: the ``param { name }`` by which layers share it; empty for none.
        lr_mult, decay_mult: what Caffe will really use.
        statistic: whether it is one of BatchNorm's running statistics, which are no weights: the
            layer writes them itself and fixes their multipliers.
        sharers: the other blobs that share it: layer, index, shape.
    """

    layer: str
    index: int
    shape: Tuple[int, ...]
    sharing_name: str
    lr_mult: float
    decay_mult: float
    statistic: bool = False
    sharers: Tuple[Tuple[str, int, Tuple[int, ...]], ...] = ()

    @property
    def name(self) -> str:
        """Its display name."""
        return f"{self.layer}/{self.index}"


def rehearse(
    path: Path, solver: Any, where: str, net: Any, state: Any, in_copy: bool
) -> List[LearnableParameter]:
    """Let another process build a solver's nets; return the train net's learnable parameters.

    Return none where a copy of this process is wanted and does not work, and a process with no more
    than its path cannot build them either: that does not say that this one cannot.

    Args:
        path, solver: the solver file, for messages, and the ``SolverParameter`` in it.
        where, net: where the train net is written, for messages, and its ``NetParameter``.
        state: the train net's ``NetState``.
        in_copy: the process is a copy of this one, and not one such as ``caffe train``.

    Raises:
        UserError: Caffe cannot build the solver's nets; Caffe's own reason is given.
    """
    layers = built(path, solver, net, state, in_copy)
    return [] if layers is None else _parameters(where, layers)


def layer_names(path: Path, solver: Any, net: Any, state: Any) -> List[str]:
    """Return the names of the train net's layers, those that Caffe adds itself included.

    Args:
        path, solver, net, state: as for :func:`rehearse`.

    Raises:
        UserError: Caffe cannot build the solver's nets; Caffe's own reason is given.
    """
    return [layer["name"] for layer in built(path, solver, net, state) or ()]


def parameters_of(net: Net, where: str) -> List[LearnableParameter]:
    """Return the learnable parameters of a train net that is built in this process.

    Args:
        net: the net.
        where: where it is written, for messages.

    Raises:
        UserError: it has none, or two layers that have some share a name.
    """
    return _parameters(where, described(net))


def _parameters(where: str, built: List[Dict[str, Any]]) -> List[LearnableParameter]:
    """Return the learnable parameters in the order of ``Net::learnable_params``."""
    names = [layer["name"] for layer in built]
    repeated = {name for name in names if names.count(name) > 1}
    parameters: List[LearnableParameter] = []
    owners: Dict[str, int] = {}  # by sharing name, their places in the list
    said: Dict[str, Set[str]] = {}  # which multipliers of a shared one were said so far
    for layer in built:
        if layer["blobs"] and layer["name"] in repeated:
            raise UserError(
                f"{where}: two layers are called '{layer['name']}'; Caffe copies weights by layer "
                "name, so give them different names"
            )
        for index, shape in enumerate(layer["blobs"]):
            spec = layer["param"][index] if index < len(layer["param"]) else {}
            sharing_name = spec.get("name", "")
            if sharing_name and sharing_name in owners:
                # As in ``Net::AppendParam``, a layer that shares a parameter may say what its
                # owner left unsaid.
                new = {n: spec[n] for n in _MULTIPLIERS - said[sharing_name] if n in spec}
                said[sharing_name].update(new)
                place = owners[sharing_name]
                sharers = (*parameters[place].sharers, (layer["name"], index, tuple(shape)))
                parameters[place] = replace(parameters[place], sharers=sharers, **new)
                continue
            parameter = LearnableParameter(
                layer["name"],
                index,
                tuple(shape),
                sharing_name,
                spec.get("lr_mult", 1.0),
                spec.get("decay_mult", 1.0),
                layer["type"] == "BatchNorm",
            )
            if sharing_name:
                owners[sharing_name], said[sharing_name] = len(parameters), set(spec)
            parameters.append(parameter)
    if not parameters:
        raise UserError(f"{where}: the train net has no learnable parameters")
    return parameters


def set_multipliers(net: Any, state: Any, parameters: Sequence[LearnableParameter]) -> None:
    """Write the parameters' multipliers into the net's ``param`` entries."""
    layers = {layer.name: layer for layer in included_layers(net, state)}
    for parameter in parameters:
        owner = param_spec(layers[parameter.layer], parameter)
        owner.lr_mult, owner.decay_mult = parameter.lr_mult, parameter.decay_mult
        sharing = (spec for layer in net.layer for spec in layer.param if spec.name)
        for spec in sharing:
            if spec.name == parameter.sharing_name:
                spec.lr_mult, spec.decay_mult = parameter.lr_mult, parameter.decay_mult


def param_spec(layer: Any, parameter: LearnableParameter) -> Any:
    """Return the parameter's ``param`` entry, adding entries up to it where the layer has none.

    A new entry says what Caffe would use without it: 1, or what the layer itself decides. An entry
    that is there keeps its lr_mult, even where sharing changes what Caffe will use: a layer does
    not compute the gradients of a parameter whose own entry says 0.
    """
    new = len(layer.param) <= parameter.index
    while len(layer.param) <= parameter.index:
        layer.param.add()
    spec = layer.param[parameter.index]
    if parameter.lr_mult == 0 and (new or parameter.statistic):
        spec.lr_mult = 0
    return spec
