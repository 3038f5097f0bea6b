"""From the file that a user names to a run: everything is read and checked."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.run import groups
from caffe_pysgd.run.configuration import Configuration, UpdateOptions, read_configuration
from caffe_pysgd.run.run import Run, run_directory
from caffe_pysgd.run.settings import MODULE
from caffe_pysgd.run.yaml_file import is_yaml
from caffe_pysgd.stock.learnable import (
    LearnableParameter,
    parameters_of,
    rehearse,
    set_multipliers,
)
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.solver_file import read_solver, read_train_net, set_field, train_state
from caffe_pysgd.update import NATIVE_RULES, HyperParameters, check, find_rule, make_rule
from caffe_pysgd.user_code import why_no_user_code


def resolve(
    source: Path,
    iterations: Optional[int] = None,
    level: Optional[int] = 0,
    stages: Tuple[str, ...] = (),
    settings: Sequence[str] = (),
    run_dir: Optional[Path] = None,
    overwrite: bool = False,
    in_copy: bool = False,
) -> Run:
    """Read and check everything that a run needs, and let Caffe build its train net once.

    Args:
        source: a YAML or a solver file.
        iterations: replaces ``max_iter``.
        level, stages: as given to ``caffe train``; a level of None stands for a solver in Python,
            which has no command line.
        settings: ``key=value``, as given to ``--set``.
        run_dir: replaces the YAML's.
        overwrite: the run may replace the snapshots of an earlier one, whatever the YAML says.
        in_copy: the train net is built in a copy of this process, and not as by ``caffe train``;
            where that does not work, the run has no parameters yet.

    Raises:
        UserError: anything that would stop the run later.
    """
    configuration = _as_told(read_configuration(source, settings), run_dir, overwrite)
    update = configuration.update
    overrides = configuration.solver_overrides
    given = update.hyperparameters()
    _refuse_both(source, configuration, given)
    solver = read_solver(configuration.solver, overrides, f"{source}: solver_overrides")
    if is_yaml(source) and "snapshot_prefix" not in overrides:
        solver.snapshot_prefix = _own_prefix(source, configuration, solver.snapshot_prefix)
    if iterations is not None:
        given["max_iter"] = iterations
    beyond = {name: given.pop(name) for name in list(given) if not _has_field(solver, name)}
    for name, value in given.items():
        set_field(solver, name, value)
    if update.names_modules() and not why_no_user_code():
        sys.path.insert(0, os.path.abspath(str(configuration.module_path)))
    rule = _choose_rule(source, update, solver)
    where, net = read_train_net(configuration.solver, solver)
    _refuse_injected(where, net)
    _refuse_python_layers(where, net, solver)
    try:
        h = hyperparameters(solver, beyond)
        check(h, make_rule(rule))
    except SettingError as error:
        raise error.at(source) from error
    except UserError as error:  # of a user's own rule
        raise UserError(f"{source}: {error}") from error
    state = train_state(solver, net, level, stages)
    parameters = rehearse(configuration.solver, solver, where, net, state, in_copy)
    run = Run(source, configuration, solver, h, where, net, state, (), (), rule)
    return _with_parameters(run, parameters) if parameters else run


def _with_parameters(run: Run, parameters: List[LearnableParameter]) -> Run:
    """Return a run with these parameters, and what the YAML says of them."""
    chosen = groups.assign(run.source, run.update, parameters)
    groups.check_each(run.source, run.update, run.h, run.rule)
    parameters, changed = groups.apply_multipliers(parameters, chosen)
    set_multipliers(run.net, run.state, changed)
    return replace(run, parameters=tuple(parameters), groups=tuple(chosen))


def with_parameters_of(run: Run, net: Net) -> Run:
    """Return a run with the parameters of its train net as it was built in this process.

    Raises:
        UserError: it was built without the multipliers in the YAML, because they were not known to
            be these.
    """
    built = parameters_of(net, run.where)
    run = _with_parameters(run, built)
    for found, parameter in zip(built, run.parameters):
        if np.float32(found.lr_mult) != np.float32(parameter.lr_mult) or (
            np.float32(found.decay_mult) != np.float32(parameter.decay_mult)
        ):
            raise UserError(
                f"{run.source}: the multipliers of {parameter.name} came too late: only this "
                f"program can build its net; write them into {run.where}"
            )
    return run


def _as_told(
    configuration: Configuration, run_dir: Optional[Path], overwrite: bool
) -> Configuration:
    """Return the configuration with what the command line says."""
    told: Dict[str, Any] = {"run_dir": run_dir} if run_dir else {}
    if overwrite:
        told["snapshots"] = configuration.snapshots.model_copy(update={"overwrite": True})
    return configuration.model_copy(update=told)


def _own_prefix(source: Path, configuration: Configuration, prefix: str) -> str:
    """Return where the snapshots of a YAML's run go: two YAMLs may name one solver file."""
    given = configuration.snapshots.prefix
    if given is None:
        folder, name = run_directory(source, configuration) / "snapshots", Path(prefix).name
        return str(folder / (name or source.stem))
    return str(Path(given, source.stem)) if given.endswith("/") or Path(given).is_dir() else given


def _choose_rule(source: Path, update: UpdateOptions, solver: Any) -> str:
    """Return the rule's name; where Caffe has it, the solver's type follows the YAML."""
    if update.rule is None:
        if solver.type not in NATIVE_RULES:
            allowed = one_of(NATIVE_RULES, solver.type)
            raise SettingError("type", solver.type, allowed, where=source)
        return NATIVE_RULES[solver.type].name
    try:
        find_rule(update.rule)
    except SettingError as error:
        raise error.at(source, "update") from error
    for solver_type, rule in NATIVE_RULES.items():
        if rule.name == update.rule:
            solver.type = solver_type
    return update.rule


def _refuse_both(source: Path, configuration: Configuration, given: Iterable[str]) -> None:
    keys = {name: f"update.{name}" for name in given}
    if configuration.update.rule:
        keys["type"] = "update.rule"
    if configuration.snapshots.prefix:
        keys["snapshot_prefix"] = "snapshots.prefix"
    for name in configuration.solver_overrides:
        if name in keys:
            raise UserError(
                f"{source}: solver_overrides.{name}: {keys[name]} is given, too; keep one of them"
            )


def _refuse_injected(where: str, net: Any) -> None:
    for layer in net.layer:
        if layer.python_param.module == MODULE:
            raise UserError(
                f"{where}: is injected already (layer '{layer.name}'); give the original net"
            )


def _refuse_python_layers(where: str, net: Any, solver: Any) -> None:
    """Check the nets before Caffe builds them, where no code of a user's own may run."""
    why = why_no_user_code()
    if not why:
        return
    nets = [(where, net), *((f"{where}: test_net_param", test) for test in solver.test_net_param)]
    nets += [(path, read_net(Path(path))) for path in solver.test_net]
    for place, one in nets:
        for layer in one.layer:
            if layer.type == "Python":
                raise UserError(
                    f"{place}: layer '{layer.name}' is written in Python "
                    f"({layer.python_param.module}), and no code of a user's own is run here: {why}"
                )


def hyperparameters(solver: Any, beyond: Mapping[str, Any]) -> HyperParameters:
    """Return what the solver says about the update, and what the YAML says beyond it.

    Which fields a solver has, its own Caffe's proto decides: those of forks differ.

    Raises:
        SettingError: a value that is not allowed.
    """
    names = [name for name in HyperParameters.__dataclass_fields__ if _has_field(solver, name)]
    return HyperParameters(**{name: getattr(solver, name) for name in names}, **beyond)


def _has_field(solver: Any, name: str) -> bool:
    return name in solver.DESCRIPTOR.fields_by_name
