"""The learnable parameters of a train net, as Caffe itself sees them.

The prototxt does not say everything: shapes follow from the data, and a layer may set its own
multipliers (BatchNorm freezes its three blobs). So a net that Caffe has built is asked. Caffe
builds the solver's nets in a process of its own first, because an error in one of them, or in what
the solver says of them, makes it abort.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.helper import run_in_copy, run_with_caffe, run_with_path
from caffe_pysgd.stock.net_file import included_layers
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.prototxt import to_text
from caffe_pysgd.stock.solver_file import replace_train_net
from caffe_pysgd.stock.writers import silence_writers

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
    built = _built(path, solver, net, state, in_copy)
    return [] if built is None else _parameters(where, built)


def layer_names(path: Path, solver: Any, net: Any, state: Any) -> List[str]:
    """Return the names of the train net's layers, those that Caffe adds itself included.

    Args:
        path, solver, net, state: as for :func:`rehearse`.

    Raises:
        UserError: Caffe cannot build the solver's nets; Caffe's own reason is given.
    """
    return [layer["name"] for layer in _built(path, solver, net, state) or ()]


def _built(
    path: Path, solver: Any, net: Any, state: Any, in_copy: bool = False
) -> Optional[List[Dict[str, Any]]]:
    """Return what the train net's layers hold once another process has built a solver's nets."""
    stated = type(solver)()
    stated.CopyFrom(solver)
    stated.train_state.CopyFrom(state)
    # What is of no matter to the nets, and what only Python's update knows.
    stated.type, stated.lr_policy = "SGD", "fixed"
    stated.snapshot = 0  # else it wants to write where snapshots go
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        prototxt, answer = Path(directory, "solver.prototxt"), Path(directory, "layers.json")
        silent = type(net)()
        silent.CopyFrom(net)
        if silence_writers(silent):  # what they wrote before is not to be lost by looking
            beside = Path(directory, "net.prototxt")
            beside.write_text(to_text(silent), encoding="utf-8")
            replace_train_net(stated, beside)
        prototxt.write_text(to_text(stated), encoding="utf-8")
        task = (_build_here, str(prototxt), str(answer))
        outcome = run_in_copy(*task) if in_copy else run_with_caffe(*task)
        if outcome is None:
            outcome = run_with_path(*task)
            if outcome.status != 0:
                return None
        if outcome.status != 0:
            reason = pycaffe.failure_reason(outcome.log)
            raise UserError(f"{path}: Caffe cannot build its nets: {reason}")
        layers: List[Dict[str, Any]] = json.loads(answer.read_text())
        return layers


def _build_here(prototxt: str, answer: str) -> None:
    """Build the nets and write down what the train net's layers hold."""
    net = pycaffe.compiled().get_solver(prototxt).net
    Path(answer).write_text(json.dumps(_described(net)))


def parameters_of(net: Net, where: str) -> List[LearnableParameter]:
    """Return the learnable parameters of a train net that is built in this process.

    Args:
        net: the net.
        where: where it is written, for messages.

    Raises:
        UserError: it has none, or two layers that have some share a name.
    """
    return _parameters(where, _described(net))


def _described(net: Net) -> List[Dict[str, Any]]:
    """Return what the layers of a net hold: names and types, blobs and params."""
    blobs = [[(blob, tuple(blob.shape)) for blob in layer.blobs] for layer in net.layers]
    each = [one for its in blobs for one in its]
    # Caffe writes out the multipliers that it really uses. Emptied blobs keep that file small, and
    # a blob that shrinks keeps its memory.
    try:
        for blob, _ in each:
            blob.reshape(0)
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
            saved = Path(directory, "net.caffemodel")
            net.save(str(saved))
            described = pycaffe.messages().NetParameter.FromString(saved.read_bytes())
    finally:
        for blob, shape in each:
            blob.reshape(*shape)
    return [
        {
            "name": layer.name,
            "type": layer.type,
            "blobs": [shape for _, shape in its],
            "param": [_spec_as_written(spec) for spec in layer.param],
        }
        for layer, its in zip(described.layer, blobs)
    ]


def _spec_as_written(spec: Any) -> Dict[str, Any]:
    return {field.name: value for field, value in spec.ListFields()}


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
