"""The injection: three Python layers into the train net, and a solver that leaves it to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional, Sequence, Set

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.add_taps import add_taps
from caffe_pysgd.hosts.in_net.initial import STAGE, describe
from caffe_pysgd.hosts.neutral import neutral_solver
from caffe_pysgd.hosts.ranks.buckets import add_senders
from caffe_pysgd.run.outputs import NET
from caffe_pysgd.run.own_snapshots import refuse_unknown_score
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import AuditSettings, UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.learnable import LearnableParameter, param_spec
from caffe_pysgd.stock.net_file import included_layers, replace_layers
from caffe_pysgd.stock.protobuf import text_format
from caffe_pysgd.stock.this_caffe import this_caffe

PLUGIN_LAYERS = ("pysgd_parameters", "pysgd_seal")  # besides the hook

# Built twice, they would do twice what is meant to be done once.
_BUILT_ONCE = ("Python", "HDF5Output")

# Only these are known to ask their own blobs where the values are. A recurrent layer has a net in
# it, whose layers remember where they were.
_CAN_SHARE = {
    "BatchNorm",
    "Bias",
    "Convolution",
    "Deconvolution",
    "Embed",
    "InnerProduct",
    "PReLU",
    "Parameter",
    "Scale",
}

_TEMPLATES = ("hook.prototxt", "parameters.prototxt", "seal.prototxt")


def write_injected(
    run: Run,
    directory: Path,
    registered: bool = False,
    audit: Optional[AuditSettings] = None,
    in_binary: bool = False,
) -> Path:
    """Write the run with Python's update into a folder; return the solver file.

    Args:
        run: what is going to be trained.
        directory: the folder.
        registered: as for :meth:`Run.settings`.
        audit: what is to be recorded.
        in_binary: the ``caffe`` binary trains, so nobody but the solver file gives a seed.

    Raises:
        UserError: Caffe was built without the Python layer, a file cannot be written, or the best
            snapshot could not be told.
    """
    settings, net = run.settings(registered), run.net
    settings = replace(settings, loggers=run.loggers(directory))
    pycaffe.require_python_layer(this_caffe().layer_types)
    if audit:
        net, complete, outputs = add_taps(net, run.state, run.solver, audit.file)
        refuse_unknown_score(run, outputs, complete)
        settings = replace(settings, audit=replace(audit, records_loss=complete))
    if settings.has_plateau and not (settings.audit and settings.audit.records_loss):
        raise UserError(
            f"{run.source}: lr_policy 'plateau' needs all of the loss, which the injected layers "
            "do not see in this net; train it with 'caffe-pysgd solve'"
        )
    if run.configuration.ranks.count > 1:
        net, ranks = add_senders(net, run)
        settings = replace(settings, ranks=ranks)
    seed = run.solver.random_seed
    alone = not (settings.registered or settings.ranks)
    initial = ""
    if alone and (in_binary or seed >= 0) and _may_own_parameters(run):
        initial = describe(directory / NET, run.state, seed)
    net = inject_net(net, run.state, run.parameters, settings, initial)
    return run.write(directory, neutral_solver(run, directory / NET), net)


def _may_own_parameters(run: Run) -> bool:
    """Return whether the net may be built once more, and its layers share what another owns."""
    types = {layer.name: layer.type for layer in included_layers(run.net, run.state)}
    learning = {types[p.layer] for p in run.parameters}
    learning |= {types[layer] for p in run.parameters for layer, *_ in p.sharers}
    return learning <= _CAN_SHARE and not set(types.values()) & set(_BUILT_ONCE)


def inject_net(
    net: Any,
    state: Any,
    parameters: Sequence[LearnableParameter],
    settings: UpdateSettings,
    initial: str = "",
) -> Any:
    """Return a copy of the net with the hook first and the seal last.

    The parameters layer is the last but one; or, where it is told how the weights begin, the second
    and the owner of the parameters.
    """
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
    holder.python_param.param_str = initial
    layers = [hook, holder, *injected.layer] if initial else [hook, *injected.layer, holder]
    replace_layers(injected, [*layers, seal])
    return injected


def _name_parameters(net: Any, state: Any, parameters: Sequence[LearnableParameter]) -> List[str]:
    """Give every learnable parameter a name to be shared by; return the names."""
    layers = {layer.name: layer for layer in included_layers(net, state)}
    taken = {spec.name for layer in net.layer for spec in layer.param}
    names = []
    for parameter in parameters:
        name = parameter.sharing_name or _free_name(parameter.name, taken)
        spec = param_spec(layers[parameter.layer], parameter)
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


def _template(name: str) -> Any:
    text = _template_file(name).read_text(encoding="utf-8")
    net = text_format.Parse(text, pycaffe.messages().NetParameter())
    (layer,) = net.layer
    layer.include[0].not_stage.append(STAGE)
    return layer


def _template_file(name: str) -> Path:
    """Return a template: installed inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "prototxt_templates" / name
    return installed if installed.is_file() else package.parent / "prototxt_templates" / name
