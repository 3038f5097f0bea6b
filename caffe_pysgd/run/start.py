"""Whether a run may start from a snapshot or a model: checked before Caffe starts."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from caffe_pysgd.errors import UserError
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import FIRST_STATE_BLOB, HOOK_NAME, UpdateSettings
from caffe_pysgd.stock.net_file import included_layers
from caffe_pysgd.stock.snapshots import Model, SolverState, read_model, read_solver_state
from caffe_pysgd.update import find_rule


def check_snapshot(path: Path, run: Run) -> SolverState:
    """Check that the in-net update can resume from a ``.solverstate``; return what that holds.

    Raises:
        UserError: it is no solver state, its model is missing or is of another net, or the model
            holds no state, or another rule's.
    """
    state, model = _read(path, run)
    settings = run.settings()
    if settings.hook_name not in model:
        raise UserError(
            f"{path}: {_why_no_state(state, model, settings)}; to start from its weights alone, "
            f"give --weights {state.learned_net}"
        )
    held = len(model[settings.hook_name]) - FIRST_STATE_BLOB
    if held != len(settings.state_names()):
        raise UserError(
            f"{state.learned_net}: holds {held} state blobs, {len(settings.state_names())} are "
            "wanted; the file is damaged"
        )
    return state


def check_native_snapshot(path: Path, run: Run) -> SolverState:
    """Check that a solver in Python can resume from a ``.solverstate``; return what it holds.

    Caffe itself accepts the state of another solver type and trains on from it (BVLC/caffe issue
    5581). A state that caffe-pysgd wrote says whose it is; of one that Caffe wrote, the number of
    history blobs, their sizes and their signs tell.

    Raises:
        UserError: it is no solver state, its model is missing or of another net, or its history is
            another rule's.
    """
    state, model = _read(path, run)
    settings = run.settings()
    if state.rule and (state.rule != run.rule or state.names != tuple(settings.state_names())):
        raise UserError(
            f"{path}: holds the state of rule '{state.rule}' ({_listed(state.names)}), this run "
            f"has rule '{run.rule}' ({_listed(settings.state_names())})"
        )
    if any(HOOK_NAME.match(name) for name in model):
        raise UserError(
            f"{path}: was taken by an in-net run; 'caffe-pysgd convert' makes a stock snapshot "
            "of it"
        )
    sizes = [settings.parameters[index].count for index, _ in settings.state_layout()]
    if [blob.size for blob in state.history] != sizes:
        raise UserError(
            f"{path}: holds {len(state.history)} history blobs, rule '{run.rule}' on this net "
            f"keeps {len(sizes)}, and their sizes must match: it was taken with another solver type"
        )
    _check_signs(path, state, run)
    return state


# All values of a unit (what one output of a layer has for weights) share their sign where its
# inputs do. So many units of one sign are hardly ever chance.
_UNITS = 16


def _check_signs(path: Path, state: SolverState, run: Run) -> None:
    """Tell sums of squares, which are never negative, from histories of gradients."""
    override = os.environ.get("CAFFE_PYSGD_RESUME", run.update.resume) == "always"
    if state.rule or override:
        return
    rule, parameters = find_rule(run.rule), run.settings().parameters
    for slot in rule.slots:
        blobs = [
            (parameters[index].shape, values)
            for (index, its_slot), values in zip(run.settings().state_layout(), state.history)
            if its_slot == slot
        ]
        negative = any(bool((values < 0).any()) for _, values in blobs)
        units = sum(
            int(values.reshape(shape[0], -1).any(axis=1).sum())
            for shape, values in blobs
            if len(shape) > 1
        )
        squares = slot in rule.squares
        if (squares and negative) or (not squares and not negative and units >= _UNITS):
            found = "negative values" if negative else "no negative value at all"
            raise UserError(
                f"{path}: its {slot} has {found}, which is not like rule '{run.rule}': it was "
                "taken with another solver type; if it was not, set CAFFE_PYSGD_RESUME=always"
            )


def _read(path: Path, run: Run) -> Tuple[SolverState, Model]:
    """Return a solver state and its model, which must be of the run's net."""
    state = read_solver_state(path)
    if not os.path.exists(state.learned_net):  # also of a name that no file can have
        raise UserError(
            f"{path}: its model {state.learned_net} is not there (it is looked for relative to "
            f"the working directory, {Path.cwd()})"
        )
    model = read_model(state.learned_net)
    another = f"{state.learned_net}: is a snapshot of another net"
    for parameter in run.parameters:
        if len(model.get(parameter.layer, [])) <= parameter.index:
            raise UserError(f"{another}: it has no parameter {parameter.name}")
    misfit = _misfit(model, run)
    if misfit:
        raise UserError(f"{another}: {misfit}")
    return state, model


def _misfit(model: Model, run: Run) -> str:
    """Return where a model does not fit the train net, or nothing.

    ``Net::CopyTrainedLayersFrom`` goes by the names of the layers, and aborts there. A layer that
    only one of the two has is of no matter.
    """
    owned = {(p.layer, p.index) for p in run.parameters}
    for layer, ours in _shapes(run).items():
        for index, (there, here) in enumerate(zip_longest(model.shapes.get(layer, ours), ours)):
            if model.keeps_with_owners and there in (None, (0,)) and (layer, index) not in owned:
                continue
            if there is None or here is None:
                held = len(model[layer])
                return f"layer '{layer}' has {held} parameters there and {len(ours)} here"
            legacy = (layer, index) in model.legacy
            if there != ((1,) * (4 - len(here)) + here if legacy else here):
                return f"{layer}/{index} has shape {there} there, {here} here"
    return ""


def _shapes(run: Run) -> Dict[str, List[Tuple[int, ...]]]:
    """Return the shapes of all blobs of the train net by layer name."""
    shapes = {(p.layer, p.index): p.shape for p in run.parameters}
    for parameter in run.parameters:
        shapes.update({(layer, index): shape for layer, index, shape in parameter.sharers})
    layers: Dict[str, List[Tuple[int, ...]]] = {
        layer.name: [] for layer in included_layers(run.net, run.state)
    }
    for layer, index in sorted(shapes):
        layers[layer].append(shapes[layer, index])
    return layers


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ..." if len(names) > 3 else shown or "nothing"


def check_weights(path: Path, run: Run) -> Path:
    """Check that a net can start from a model; return the model's path.

    Raises:
        UserError: it is no model, or a layer in it has the name of one of the net's, but not its
            shape.
    """
    misfit = _misfit(read_model(path), run)
    if misfit:
        raise UserError(
            f"{path}: does not fit this net: {misfit}; weights are copied by layer name, so to "
            "learn this layer from scratch, rename it in the net"
        )
    return path


def start_from(run: Run, snapshot: Optional[str], weights: Sequence[str]) -> Run:
    """Return the run as a command line starts it, once what it starts from was checked.

    Args:
        snapshot: a ``.solverstate``, to resume from.
        weights: ``.caffemodel`` files to begin with.

    Raises:
        UserError: one of them cannot be used for this run.
    """
    if not snapshot and not weights:
        return run
    for model in weights:
        check_weights(Path(model), run)
    if snapshot:
        check_native_snapshot(Path(snapshot), run)
    return replace(run.with_solver(weights=list(weights)), snapshot=snapshot or "")


def _why_no_state(state: SolverState, model: Model, settings: UpdateSettings) -> str:
    hooks = [(name, match["rule"]) for name in model if (match := HOOK_NAME.match(name))]
    if not hooks:
        taken = (
            f"by a solver in Python, rule '{state.rule}',"
            if state.rule
            else "by Caffe's own solver"
        )
        return (
            f"was taken {taken} and holds no state of the in-net update; 'caffe-pysgd convert' "
            "makes an in-net snapshot of it"
        )
    name, rule = hooks[0]
    if name in model.notes:
        held = UpdateSettings.from_json(model.notes[name])
        rule = held.rule
        ours, theirs = settings.state_names(), held.state_names()
        for wanted, found in zip_longest(ours, theirs, fillvalue="nothing"):
            if wanted != found:
                return (
                    f"holds the state of rule '{rule}' ({found}), this run has rule "
                    f"'{settings.rule}' ({wanted})"
                )
    return f"holds the state of rule '{rule}', this run has rule '{settings.rule}'"
