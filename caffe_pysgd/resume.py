"""Whether a run may start from a snapshot or a model: checked before Caffe starts."""

from __future__ import annotations

from pathlib import Path

from caffe_pysgd.errors import UserError
from caffe_pysgd.prototxt.in_net import FIRST_STATE_BLOB, HOOK_PREFIX
from caffe_pysgd.run import Run
from caffe_pysgd.snapshots import Model, read_model, read_solver_state


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


def check_weights(path: Path) -> Path:
    """Check that there is a model in the file; return its path.

    Raises:
        UserError: there is none.
    """
    read_model(path)
    return path


def _why_no_state(model: Model, rule: str) -> str:
    held = [layer[len(HOOK_PREFIX) :] for layer in model if layer.startswith(HOOK_PREFIX)]
    held = [name.rsplit("_", 1)[0] for name in held if name not in ("parameters", "seal")]
    if not held:
        return "was taken by the native solver and holds no state of the in-net update"
    if held[0] != rule:
        return f"holds the state of rule '{held[0]}', this run has rule '{rule}'"
    return f"holds the state of rule '{rule}' for a net with other parameters"


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
