"""The injection: three Python layers into the train net, and a solver that leaves it to them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, List, Sequence, Set

from google.protobuf import text_format

from caffe_pysgd import pycaffe
from caffe_pysgd.errors import UserError
from caffe_pysgd.prototxt.in_net import MODULE, UpdateSettings
from caffe_pysgd.prototxt.net import included_layers
from caffe_pysgd.prototxt.parameters import LearnableParameter

PLUGIN_LAYERS = ("pysgd_parameters", "pysgd_seal")  # besides the hook

_TEMPLATES = ("hook.prototxt", "parameters.prototxt", "seal.prototxt")


def refuse_injected(where: str, net: Any) -> None:
    """Refuse a net that already holds the layers.

    Raises:
        UserError: naming the layer that was found.
    """
    for layer in net.layer:
        if layer.python_param.module == MODULE:
            raise UserError(
                f"{where}: is injected already (layer '{layer.name}'); give the original net"
            )


def inject_net(
    net: Any, state: Any, parameters: Sequence[LearnableParameter], settings: UpdateSettings
) -> Any:
    """Return a copy of the net with the hook first, and the parameters and the seal last."""
    injected = type(net)()
    injected.CopyFrom(net)
    names = _name_parameters(injected, state, parameters)
    hook, holder, seal = (_template(name) for name in _TEMPLATES)
    hook.name = settings.hook_name
    hook.python_param.param_str = settings.to_json()
    if settings.registered:
        for _ in range(1 + len(settings.state_names())):
            hook.param.add(lr_mult=0, decay_mult=0)
    _take_rates(injected, set(names))
    for name in names:
        holder.param.add(name=name, lr_mult=0)
    layers = [hook, *injected.layer, holder, seal]
    del injected.layer[:]
    injected.layer.extend(layers)
    return injected


def _name_parameters(net: Any, state: Any, parameters: Sequence[LearnableParameter]) -> List[str]:
    """Give every learnable parameter a name to be shared by; return the names."""
    layers = {layer.name: layer for layer in included_layers(net, state)}
    taken = {spec.name for layer in net.layer for spec in layer.param}
    names = []
    for parameter in parameters:
        name = parameter.sharing_name or _free_name(parameter.name, taken)
        spec = _param_spec(layers[parameter.layer], parameter)
        spec.name = name
        names.append(name)
    return names


def _take_rates(net: Any, names: Set[str]) -> None:
    """Let Caffe's own rate of every parameter be 0, so that its update has less to do.

    Where a layer says no lr_mult, Caffe takes that of the last layer that shares the parameter:
    ours, which says 0. The layer still learns, because its own is 1 by default; a layer that says
    0 computes no gradient, and keeps it. Python knows the true ones.
    """
    for layer in net.layer:
        for spec in layer.param:
            if spec.name in names and spec.lr_mult != 0:
                spec.ClearField("lr_mult")


def _free_name(name: str, taken: Set[str]) -> str:
    while name in taken:
        name = f"pysgd/{name}"
    taken.add(name)
    return name


def set_multipliers(net: Any, state: Any, parameters: Sequence[LearnableParameter]) -> None:
    """Write the parameters' multipliers into the net's ``param`` entries."""
    layers = {layer.name: layer for layer in included_layers(net, state)}
    for parameter in parameters:
        owner = _param_spec(layers[parameter.layer], parameter)
        owner.lr_mult, owner.decay_mult = parameter.lr_mult, parameter.decay_mult
        sharing = (spec for layer in net.layer for spec in layer.param if spec.name)
        for spec in sharing:
            if spec.name == parameter.sharing_name:
                spec.lr_mult, spec.decay_mult = parameter.lr_mult, parameter.decay_mult


def _param_spec(layer: Any, parameter: LearnableParameter) -> Any:
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


def neutral_solver(solver: Any, net_path: Path, caffe_knows_the_rate: bool) -> Any:
    """Return a copy of the solver whose native update changes no bit of the weights.

    With plain SGD, no decay and no clipping, ``data -= rate * 0`` is a no-op; rate, display, tests,
    snapshots and signals stay Caffe's. A momentum of 1 keeps a history of zeros what it is, and is
    the one that a BLAS has nothing to do for. A rate that Caffe cannot compute is 0 in its log;
    ``pysgd_rate`` shows the true one.
    """
    neutral = type(solver)()
    neutral.CopyFrom(solver)
    replace_train_net(neutral, net_path)
    neutral.type = "SGD"
    neutral.momentum = 1
    for field in ("weight_decay", "clip_gradients"):
        neutral.ClearField(field)
    if not caffe_knows_the_rate:
        neutral.lr_policy, neutral.base_lr = "fixed", 0
    return neutral


def replace_train_net(solver: Any, net_path: Path) -> None:
    """Let the solver read its train net, and test nets written in the same place, from a file."""
    field = "net" if solver.HasField("net") or solver.HasField("net_param") else "train_net"
    for inline in ("net_param", "train_net_param"):
        solver.ClearField(inline)
    setattr(solver, field, str(net_path))


def _template(name: str) -> Any:
    text = _template_file(name).read_text(encoding="utf-8")
    net = text_format.Parse(text, pycaffe.messages().NetParameter())
    (layer,) = net.layer
    return layer


def _template_file(name: str) -> Any:
    """Return a template: installed inside the package, in a checkout beside it."""
    package = resources.files("caffe_pysgd")
    installed = package / "prototxt_templates" / name
    if installed.is_file():
        return installed
    return Path(str(package)).parent / "prototxt_templates" / name
