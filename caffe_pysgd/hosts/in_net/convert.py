"""Snapshots from one host to the other: in-net to stock, and back.

A stock snapshot is a ``.caffemodel`` and a ``.solverstate`` with the history. An in-net snapshot
has the history in the hook layer's blobs, and a ``.solverstate`` whose own history is zeros: one
blob for each learnable parameter of the injected net.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import replacing
from caffe_pysgd.hosts.in_net.add_taps import PREFIX as TAP_PREFIX
from caffe_pysgd.hosts.in_net.add_taps import remove_taps
from caffe_pysgd.hosts.in_net.inject import PLUGIN_LAYERS, inject_net
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import (
    FIRST_STATE_BLOB,
    HEADER_BLOB,
    HOOK_NAME,
    Header,
    UpdateSettings,
    pack_header,
    unpack_header,
)
from caffe_pysgd.run.start import check_native_snapshot, check_snapshot
from caffe_pysgd.stock.snapshots import (
    SolverState,
    hdf5_file,
    is_hdf5,
    read_model,
    read_model_message,
    read_solver_state,
    set_blob,
    snapshot_names,
    write_solver_state,
)
from caffe_pysgd.update import NATIVE_NAMES
from caffe_pysgd.update.policies.plateau import PlateauState


def to_stock(snapshot: Path, run: Run, prefix: Path) -> Path:
    """Write a stock snapshot of an in-net one; return its ``.solverstate``.

    Args:
        snapshot: the in-net ``.solverstate``.
        run: what was trained.
        prefix: the names' beginning, to which ``_iter_N`` is added as Caffe does.

    Raises:
        UserError: it is no in-net snapshot of this run, or Caffe has no such rule.
    """
    _refuse_unknown_rules(run)
    model_path = check_snapshot(snapshot, run).learned_net
    settings = run.settings()
    hook = read_model(model_path)[settings.hook_name]
    header = unpack_header(hook[HEADER_BLOB])
    model, state = snapshot_names(prefix, header.iteration, is_hdf5(model_path))
    strip(model_path, model)
    _write_stock_state(run, state, model, hook[FIRST_STATE_BLOB:], header)
    return state


def to_in_net(snapshot: Path, run: Run, prefix: Path) -> Path:
    """Write an in-net snapshot of a stock one; return its ``.solverstate``.

    Raises:
        UserError: it is no stock snapshot of this run, or Caffe has no such rule.
    """
    _refuse_unknown_rules(run)
    stock = check_native_snapshot(snapshot, run)
    hdf5 = is_hdf5(stock.learned_net)
    settings = run.settings(registered=hdf5)
    seen = PlateauState(stock.minimum_loss, stock.iter_last_event)
    header = Header(stock.iteration, stock.current_step, seen)
    packed = pack_header(header, settings.header_size)
    hook = [np.zeros(1, np.float32), packed, *stock.history]
    model, state = snapshot_names(prefix, stock.iteration, hdf5)
    with replacing(model) as beside:
        if hdf5:
            _add_hook_to_hdf5(stock.learned_net, beside, settings, hook)
        else:
            _add_hook(stock.learned_net, beside, run, settings, hook)
    write_neutral_state(state, run, settings, replace(stock, learned_net=model))
    return state


def is_neutral(state: SolverState, run: Run, settings: UpdateSettings) -> bool:
    """Return whether the neutral solver of an injected net can take a state as it is.

    Where it was taken with another snapshot_format or debug_info, what Caffe keeps has changed.
    """
    wanted, held = _neutral_shapes(run, settings), list(state.shapes)
    if is_hdf5(state.learned_net):
        return held == wanted
    return list(map(math.prod, held)) == list(map(math.prod, wanted))


def write_neutral_state(path: Path, run: Run, settings: UpdateSettings, state: SolverState) -> None:
    """Write the ``.solverstate`` of an injected net: iteration, step, model, and zeros.

    Raises:
        UserError: it cannot be written.
    """
    shapes = _neutral_shapes(run, settings)
    zeros = [np.zeros(math.prod(shape), np.float32) for shape in shapes]
    neutral = SolverState(state.iteration, state.current_step, state.learned_net, zeros)
    write_solver_state(path, neutral, shapes)


def _neutral_shapes(run: Run, settings: UpdateSettings) -> List[Tuple[int, ...]]:
    """The learnable parameters of an injected net: the hook's own blobs, then the net's."""
    hook: List[Tuple[int, ...]] = [(1,)]
    if settings.registered:
        hook.append((settings.header_size,))
        hook += [(settings.parameters[index].count,) for index, _ in settings.state_layout()]
    return hook + [p.shape for p in run.parameters]


def strip(model: Path, output: Path) -> None:
    """Write a model without the plugin's layers.

    Raises:
        UserError: it is no model.
    """
    if is_hdf5(model):
        read_model(model)
        with replacing(output) as beside:
            beside.write_bytes(model.read_bytes())
            with hdf5_file(beside, "a") as file:
                for group in ("data", "diff"):
                    for layer in list(file.get(group, ())):
                        if _is_plugin_layer(layer):
                            del file[f"{group}/{layer}"]
        return
    message = read_model_message(model)
    untapped = remove_taps(message.layer)
    kept = [layer for layer in untapped if not _is_plugin_layer(layer.name)]
    if not kept and not message.layers:
        raise UserError(f"{model}: is not a complete Caffe model (.caffemodel)")
    for layer in kept:
        for spec in layer.param:
            if spec.name == f"{layer.name}/{list(layer.param).index(spec)}":
                spec.ClearField("name")
    del message.layer[:]
    message.layer.extend(kept)
    with replacing(output) as beside:
        beside.write_bytes(message.SerializeToString())


def is_in_net(snapshot: Path) -> bool:
    """Return whether a ``.solverstate`` belongs to an in-net run.

    Raises:
        UserError: it is no solver state, or its model is not there.
    """
    model = read_model(read_solver_state(snapshot).learned_net)
    return any(_is_plugin_layer(name) for name in model)


def _is_plugin_layer(name: str) -> bool:
    own = name in PLUGIN_LAYERS or name.startswith(TAP_PREFIX)
    return own or HOOK_NAME.match(name) is not None


def _refuse_unknown_rules(run: Run) -> None:
    for parameter in run.settings().parameters:
        if parameter.rule not in NATIVE_NAMES or parameter.rule != run.rule:
            raise UserError(
                f"{run.source}: {parameter.name} has rule '{parameter.rule}': a stock snapshot "
                f"holds the state of one of Caffe's own rules ({', '.join(sorted(NATIVE_NAMES))})"
            )


def _write_stock_state(
    run: Run,
    path: Path,
    model: Path,
    history: List[Floats],
    header: Header,
) -> None:
    settings = run.settings()
    names = tuple(settings.state_names())
    shapes = [run.parameters[index].shape for index, _ in settings.state_layout()]
    iteration, step, seen = header
    state = SolverState(iteration, step, model, history, run.rule, names, *seen)
    write_solver_state(path, state, shapes)


def _add_hook(
    stock: Path, output: Path, run: Run, settings: UpdateSettings, blobs: List[Floats]
) -> None:
    message: Any = read_model_message(stock)
    injected = inject_net(run.net, run.state, run.parameters, settings)
    hook, holder, seal = injected.layer[0], injected.layer[-2], injected.layer[-1]
    for values in blobs:
        set_blob(hook.blobs.add(), values, values.shape)
    layers = [hook, *message.layer, holder, seal]
    del message.layer[:]
    message.layer.extend(layers)
    output.write_bytes(message.SerializeToString())


def _add_hook_to_hdf5(
    stock: Path, output: Path, settings: UpdateSettings, blobs: List[Floats]
) -> None:
    output.write_bytes(stock.read_bytes())
    with hdf5_file(output, "a") as file:
        group = file.create_group(f"data/{settings.hook_name}")
        for number, values in enumerate(blobs):
            group[str(number)] = values
        for name in PLUGIN_LAYERS:
            file.create_group(f"data/{name}")
