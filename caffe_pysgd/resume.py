"""Whether a run may start from a snapshot or a model: checked before Caffe starts."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from caffe_pysgd.errors import UserError
from caffe_pysgd.prototxt.in_net import FIRST_STATE_BLOB, HOOK_NAME, plain_rule_name
from caffe_pysgd.run import Run
from caffe_pysgd.snapshots import Model, SolverState, read_model, read_solver_state


def check_snapshot(path: Path, run: Run) -> Path:
    """Check that the in-net update can resume from a ``.solverstate``; return its model's path.

    Raises:
        UserError: it is no solver state, its model is missing or is of another net, or the model
            holds no state, or another rule's.
    """
    state = read_solver_state(path)
    if not state.learned_net.exists():
        raise UserError(
            f"{path}: its model {state.learned_net} is not there (Caffe reads it relative to the "
            f"working directory, {Path.cwd()})"
        )
    model = read_model(state.learned_net)
    _check_weights_fit(state.learned_net, model, run)
    settings = run.settings()
    if settings.hook_name not in model:
        raise UserError(
            f"{path}: {_why_no_state(model, settings.rule)}; to start from its "
            f"weights alone, give --weights {state.learned_net}"
        )
    held = len(model[settings.hook_name]) - FIRST_STATE_BLOB
    if held != len(settings.state_names()):
        raise UserError(
            f"{state.learned_net}: holds {held} state blobs, {len(settings.state_names())} are "
            "wanted; the file is damaged"
        )
    return state.learned_net


def check_native_snapshot(path: Path, run: Run) -> SolverState:
    """Check that a solver in Python can resume from a ``.solverstate``; return what it holds.

    Caffe itself accepts the state of another solver type and trains on from it (BVLC/caffe issue
    5581). A state that caffe-pysgd wrote says whose it is; of one that Caffe wrote, the number of
    history blobs, their sizes and their signs tell.

    Raises:
        UserError: it is no solver state, its model is missing or of another net, or its history is
            another rule's.
    """
    state = read_solver_state(path)
    if not state.learned_net.exists():
        raise UserError(
            f"{path}: its model {state.learned_net} is not there (it is looked for relative to "
            f"the working directory, {Path.cwd()})"
        )
    _check_weights_fit(state.learned_net, read_model(state.learned_net), run)
    settings = run.settings()
    if state.rule and (state.rule != run.rule or state.names != tuple(settings.state_names())):
        raise UserError(
            f"{path}: holds the state of rule '{state.rule}' ({_listed(state.names)}), this run "
            f"has rule '{run.rule}' ({_listed(settings.state_names())})"
        )
    if any(name.startswith("pysgd_") for name in read_model(state.learned_net)):
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


# Means of squares are never negative; a history of gradients has both signs, save by chance.
_SQUARES = {
    "sgd": (False,), "nesterov": (False,), "adagrad": (True,), "rmsprop": (True,),
    "adadelta": (True, True), "adam": (False, True),
}  # fmt: skip


# All values of a unit (what one output of a layer has for weights) share their sign where its
# inputs do. So many units of one sign are no chance.
_UNITS = 16


def _check_signs(path: Path, state: SolverState, run: Run) -> None:
    rule = run.rule
    if state.rule or rule not in _SQUARES or not state.history:
        return
    shapes = [parameter.shape for parameter in run.parameters]
    count = len(state.history) // len(_SQUARES[rule])
    for number, squares in enumerate(_SQUARES[rule]):
        blobs = state.history[number * count : (number + 1) * count]
        negative = any(bool((blob < 0).any()) for blob in blobs)
        units = sum(
            int(blob.reshape(shape[0], -1).any(axis=1).sum())
            for blob, shape in zip(blobs, shapes)
            if len(shape) > 1
        )
        if (squares and negative) or (not squares and not negative and units >= _UNITS):
            what = "squares, which are never negative" if squares else "both signs"
            raise UserError(
                f"{path}: was taken with another solver type: the history of '{rule}' has {what}"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ..." if len(names) > 3 else shown or "nothing"


def check_weights(path: Path) -> Path:
    """Check that there is a model in the file; return its path.

    Raises:
        UserError: there is none.
    """
    read_model(path)
    return path


def _why_no_state(model: Model, rule: str) -> str:
    held = [HOOK_NAME.match(layer) for layer in model]
    rules = [match["rule"] for match in held if match]
    if not rules:
        return "was taken by the native solver and holds no state of the in-net update"
    if rules[0] != plain_rule_name(rule):
        return f"holds the state of rule '{rules[0]}', this run has rule '{rule}'"
    return (
        f"holds the state of rule '{rules[0]}' for other parameters, or with other slots or rules "
        "for some of them"
    )


def _check_weights_fit(path: Path, model: Model, run: Run) -> None:
    for parameter in run.parameters:
        count = 1
        for dimension in parameter.shape:
            count *= dimension
        blobs = model.get(parameter.layer)
        if blobs is None or len(blobs) <= parameter.index:
            raise UserError(
                f"{path}: is a snapshot of another net: it has no parameter {parameter.name}"
            )
        if blobs[parameter.index].size != count:
            raise UserError(
                f"{path}: is a snapshot of another net: {parameter.name} has "
                f"{blobs[parameter.index].size} values there, {count} here"
            )
