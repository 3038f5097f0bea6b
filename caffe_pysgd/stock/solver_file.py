"""Solver files, read as ``ReadSolverParamsFromTextFileOrDie`` reads them."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, Mapping, Optional, Tuple

from caffe_pysgd.errors import SettingError, UserError, nearest, one_of
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.prototxt import read_text

TRAIN_NET_FIELDS = ("net", "net_param", "train_net", "train_net_param")

_NOTHING: Mapping[str, Any] = MappingProxyType({})

# The deprecated enum solver_type, spelt as the field that replaced it.
_TYPES = {
    name.upper(): name for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
}


def read_solver(path: Path, overrides: Mapping[str, Any] = _NOTHING, where: str = "") -> Any:
    """Return the ``SolverParameter`` in a file, upgraded the way Caffe upgrades it.

    Args:
        path: the file.
        overrides: values of scalar fields, in the place of the file's.
        where: what holds the overrides, for errors.

    Raises:
        UserError: the file does not parse, or says what Caffe would refuse.
    """
    solver = read_text(path, pycaffe.messages().SolverParameter())
    _upgrade_type(path, solver)
    for name, value in overrides.items():
        _override(solver, name, value, where)
    _complete_snapshot_prefix(path, solver)
    given = [field for field in TRAIN_NET_FIELDS if solver.HasField(field)]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "no train net is given"
        raise UserError(f"{path}: {found}; give exactly one of {', '.join(TRAIN_NET_FIELDS)}")
    if solver.average_loss < 1:
        raise SettingError("average_loss", solver.average_loss, "1 or more", where=path)
    return solver


def _override(solver: Any, name: str, value: Any, where: str) -> None:
    """Set a scalar field, or a list of scalars, to what a YAML says."""
    fields = solver.DESCRIPTOR.fields_by_name
    field = fields.get(name)
    if field is None:
        hint = nearest(name, fields) or "; see caffe.proto for its fields"
        raise UserError(f"{where}.{name}: SolverParameter has no field '{name}'{hint}")
    if field.message_type is not None:
        raise UserError(f"{where}.{name}: is a whole message; write it into the solver file")
    repeated = field.label == field.LABEL_REPEATED
    if isinstance(value, list) is not repeated:
        expected = "a list" if repeated else "one value"
        raise SettingError("", value, expected, where=f"{where}.{name}")
    values = [_fitting(field, one, where) for one in (value if repeated else [value])]
    try:
        set_field(solver, name, values if repeated else values[0])
    except (TypeError, ValueError) as error:  # such as a number that an int32 cannot hold
        reason = " ".join(str(error).split())[:200]
        raise SettingError("", value, problem=reason, where=f"{where}.{name}") from error


def _fitting(field: Any, value: Any, where: str) -> Any:
    """Return a value as a field takes it: protobuf would take true for 1, and infinity."""
    if field.enum_type is not None:
        known = field.enum_type.values_by_name
        if value in known:
            return known[value].number
        raise SettingError("", value, one_of(known, str(value)), where=f"{where}.{field.name}")
    kinds: Dict[int, Tuple[Any, str]] = {
        field.CPPTYPE_BOOL: (bool, "true or false"),
        field.CPPTYPE_STRING: (str, "a text"),
        field.CPPTYPE_FLOAT: ((int, float), "a finite number"),
    }
    kind, expected = kinds.get(field.cpp_type, (int, "a whole number"))
    fits = isinstance(value, kind) and isinstance(value, bool) is (kind is bool)
    if not fits or (isinstance(value, float) and not abs(value) < 3.5e38):
        raise SettingError("", value, expected, where=f"{where}.{field.name}")
    return value


def _upgrade_type(path: Path, solver: Any) -> None:
    if not solver.HasField("solver_type"):
        return
    enum = solver.DESCRIPTOR.fields_by_name["solver_type"].enum_type
    if solver.HasField("type"):
        raise UserError(f"{path}: has both 'type' and the deprecated 'solver_type'; keep 'type'")
    (name,) = (v.name for v in enum.values if v.number == solver.solver_type)
    solver.type = _TYPES.get(name, name)  # a fork has types of its own
    solver.ClearField("solver_type")


def _complete_snapshot_prefix(path: Path, solver: Any) -> None:
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(path.with_suffix(""))
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = str(Path(solver.snapshot_prefix) / path.stem)


def asks_for_gpu(solver: Any) -> bool:
    """Return whether `caffe train` would run this solver on a GPU, were it not told otherwise."""
    return bool(solver.HasField("solver_mode") and solver.solver_mode == type(solver).GPU)


def read_train_net(path: Path, solver: Any) -> Tuple[str, Any]:
    """Return where the train net of a solver is written, and its ``NetParameter``.

    A path inside the solver file is relative to the working directory, as Caffe reads it.

    Raises:
        UserError: the net file is missing or does not parse.
    """
    for field in ("net", "train_net"):
        if solver.HasField(field):
            net_path = Path(getattr(solver, field))
            if not net_path.exists():
                raise UserError(
                    f"{path}: {field}: there is no file {net_path} (Caffe reads it relative to "
                    f"the working directory, {Path.cwd()})"
                )
            return str(net_path), read_net(net_path)
    field = "net_param" if solver.HasField("net_param") else "train_net_param"
    net = pycaffe.messages().NetParameter()
    net.CopyFrom(getattr(solver, field))
    where = f"{path}: {field}"
    if net.layers:
        raise UserError(
            f"{where}: uses the old 'layers {{ }}' format; put the net into a file of its own and "
            "upgrade it with 'upgrade_net_proto_text OLD.prototxt NEW.prototxt'"
        )
    return where, net


def train_state(solver: Any, net: Any, level: Optional[int], stages: Tuple[str, ...]) -> Any:
    """Return the ``NetState`` that ``caffe train --level --stage`` gives the train net.

    Caffe's order of precedence: the solver's defaults, the net's own ``state``, the solver's
    ``train_state`` with the level and the stages of the command line. Without a level there is no
    command line: a solver in Python has the state that its file says.

    Raises:
        UserError: the state's phase is not TRAIN.
    """
    messages = pycaffe.messages()
    state = messages.NetState(phase=messages.TRAIN)
    state.MergeFrom(net.state)
    state.MergeFrom(solver.train_state)
    if level is not None:
        state.level = level
        state.stage.extend(stages or ("",))
    if state.phase != messages.TRAIN:
        raise UserError("train_state: phase: found TEST; a net that is trained has phase TRAIN")
    return state


def set_field(solver: Any, name: str, value: Any) -> None:
    """Set a field of a ``SolverParameter``: a value, a list, or a message to copy."""
    if isinstance(value, (list, tuple)):
        solver.ClearField(name)
        getattr(solver, name).extend(value)
    elif hasattr(value, "DESCRIPTOR"):
        getattr(solver, name).CopyFrom(value)
    else:
        setattr(solver, name, value)


def replace_train_net(solver: Any, net_path: Path) -> None:
    """Let the solver read its train net, and test nets written in the same place, from a file."""
    field = "net" if solver.HasField("net") or solver.HasField("net_param") else "train_net"
    for inline in ("net_param", "train_net_param"):
        solver.ClearField(inline)
    setattr(solver, field, str(net_path))
