"""Which records each rank trains on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Sequence

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.run.run import Run
from caffe_pysgd.stock.net_file import included_layers

# What in a layer that reads records for itself says which; ``Data`` layers deal them out.
_SOURCES = {
    "HDF5Data": ("hdf5_data_param", "source"),
    "ImageData": ("image_data_param", "source"),
    "WindowData": ("window_data_param", "source"),
    "Python": ("python_param", "param_str"),
}


def own_records(run: Run, rank: int, count: int) -> Run:
    """Return the run as a rank trains it: with its share of the batch, and sources of its own.

    Raises:
        UserError: a layer would give all ranks the same records; a batch cannot be divided.
    """
    if run.settings().has_plateau:
        raise UserError(
            f"{run.source}: lr_policy 'plateau' follows the loss, and each rank has a loss of its "
            "own; use another policy"
        )
    options = run.configuration.ranks
    net = type(run.net)()
    net.CopyFrom(run.net)
    layers = {layer.name: layer for layer in included_layers(net, run.state) if not layer.bottom}
    _check_names(run, options.sources, layers, count)
    for name, layer in layers.items():
        if name in options.sources:
            message, field = _SOURCES[layer.type]
            setattr(getattr(layer, message), field, options.sources[name][rank])
        elif layer.type != "Data":
            _refuse_same_records(run, layer)
        elif options.batch == "total":
            layer.data_param.batch_size = _share(run, layer, count)
    return replace(run, net=net)


def most_ranks(run: Run, cores: int) -> int:
    """Return the largest number of ranks, up to the number of cores, that can share the records.

    Raises:
        UserError: no two can.
    """
    for count in range(cores, 1, -1):
        try:
            own_records(run, 0, count)
            return count
        except UserError:
            if count == 2:
                raise
    return 1


def whole_batch(run: Run, count: int) -> Any:
    """Return the net with which one process has the batches of all ranks in one.

    Raises:
        UserError: a layer has records that are not dealt out: one process cannot have them all.
    """
    net = type(run.net)()
    net.CopyFrom(run.net)
    options = run.configuration.ranks
    for layer in included_layers(net, run.state):
        if not layer.bottom and (layer.type != "Data" or layer.name in options.sources):
            raise UserError(
                f"{run.source}: layer '{layer.name}' ({layer.type}): no process has the records "
                "of all ranks; only Data layers can be verified"
            )
        if layer.type == "Data" and options.batch == "each":
            layer.data_param.batch_size *= count
    return net


def _check_names(
    run: Run, sources: Dict[str, List[str]], layers: Dict[str, Any], count: int
) -> None:
    for name, each in sources.items():
        key = f"ranks.sources.{name}"
        able = [n for n, layer in layers.items() if layer.type in _SOURCES]
        if name not in able:
            allowed = one_of(able, name) if able else "nothing: Data layers deal records out"
            raise SettingError("ranks.sources", name, allowed, where=run.source)
        if len(each) != count:
            raise SettingError(key, each, f"{count} sources, one for each rank", where=run.source)


def _refuse_same_records(run: Run, layer: Any) -> None:
    fillers: Sequence[Any] = layer.dummy_data_param.data_filler
    if layer.type == "DummyData" and all(filler.type == "constant" for filler in fillers):
        return
    if layer.type in _SOURCES:
        raise UserError(
            f"{run.source}: layer '{layer.name}' ({layer.type}) would give every rank the same "
            f"records; give each its own: ranks: {{sources: {{{layer.name}: [...]}}}}, or use a "
            "Data layer, which deals them out"
        )
    if layer.type in ("DummyData", "Input", "MemoryData"):
        raise UserError(
            f"{run.source}: layer '{layer.name}' ({layer.type}) does not deal records out among "
            "ranks; use a Data layer"
        )


def _share(run: Run, layer: Any, count: int) -> int:
    batch = int(layer.data_param.batch_size)
    if batch % count:
        raise UserError(
            f"{run.source}: layer '{layer.name}': batch_size {batch} cannot be shared by {count} "
            "ranks; ranks.batch: each gives every rank a batch of that size"
        )
    return batch // count
