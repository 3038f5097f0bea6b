"""A run, resolved: what the configuration, the solver file and the net file come to together."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, List, Optional, Tuple

from caffe_pysgd.config import Configuration, UpdateOptions, read_configuration
from caffe_pysgd.errors import UserError, nearest
from caffe_pysgd.files import write_whole
from caffe_pysgd.prototxt import injection
from caffe_pysgd.prototxt.in_net import InNetSettings, ParameterSettings
from caffe_pysgd.prototxt.parameters import LearnableParameter, learnable_parameters
from caffe_pysgd.prototxt.solver import (
    hyperparameters,
    read_solver,
    read_train_net,
    train_state,
)
from caffe_pysgd.prototxt.text import to_text
from caffe_pysgd.update import RULES


@dataclass
class Run:
    """Everything that is known about a run before it starts.

    Attributes:
        source: the file that the user named.
        configuration: what the YAML says.
        solver: the ``SolverParameter``, upgraded, with the YAML's hyper-parameters written in.
        net: the train net's ``NetParameter``, with the YAML's multipliers written in.
        state: the ``NetState`` of the train net.
        parameters: the learnable parameters in Caffe's order.
        rule: the update rule's name.
    """

    source: Path
    configuration: Configuration
    solver: Any
    net: Any
    state: Any
    parameters: List[LearnableParameter]
    rule: str

    @property
    def update(self) -> UpdateOptions:
        """How the update is computed."""
        return self.configuration.update

    def settings(self, registered: bool = False) -> InNetSettings:
        """Return what the in-net layers are told.

        Args:
            registered: register the state blobs with the net even where the solver does not need
                it, for a start from an HDF5 model.
        """
        return InNetSettings(
            rule=self.rule,
            slots=RULES[self.rule].slots,
            kernels=self.update.kernels,
            hyperparameters=hyperparameters(self.source, self.solver).as_plain(),
            parameters=tuple(
                ParameterSettings(p.name, p.shape, p.lr_mult, p.decay_mult) for p in self.parameters
            ),
            display=self.solver.display,
            resume=self.update.resume,
            registered=registered or needs_registered_state(self.solver, self.net),
        )

    def write_stock(self, directory: Path) -> Path:
        """Write the run for the native solver into a folder; return the solver file."""
        solver = type(self.solver)()
        solver.CopyFrom(self.solver)
        injection.replace_train_net(solver, directory / "net.prototxt")
        return self._write(directory, solver, self.net)

    def write_injected(self, directory: Path, registered: bool = False) -> Path:
        """Write the run with Python's update into a folder; return the solver file."""
        settings = self.settings(registered)
        net = injection.inject_net(self.net, self.state, self.parameters, settings)
        solver = injection.neutral_solver(self.solver, directory / "net.prototxt")
        return self._write(directory, solver, net)

    def _write(self, directory: Path, solver: Any, net: Any) -> Path:
        origin = f"# Written by caffe-pysgd from {self.source}.\n"
        solver_path = directory / "solver.prototxt"
        write_whole(directory / "net.prototxt", origin + to_text(net))
        write_whole(solver_path, origin + to_text(solver))
        return solver_path


def resolve(
    source: Path,
    iterations: Optional[int] = None,
    level: int = 0,
    stages: Tuple[str, ...] = (),
) -> Run:
    """Read and check everything that a run needs, and let Caffe build its train net once.

    Args:
        source: a YAML or a solver file.
        iterations: replaces ``max_iter``.
        level, stages: as given to ``caffe train``.

    Raises:
        UserError: anything that would stop the run later.
    """
    configuration = read_configuration(source)
    solver = read_solver(configuration.solver)
    for name, value in configuration.update.overrides().items():
        _override(solver, name, value)
    if iterations is not None:
        solver.max_iter = iterations
    hyperparameters(source, solver)
    rule = _rule(source, configuration.update.rule, solver.type)
    where, net = read_train_net(configuration.solver, solver)
    injection.refuse_injected(where, net)
    state = train_state(solver, net, level, stages)
    parameters = learnable_parameters(where, net, state)
    if configuration.update.params:
        _apply_groups(source, configuration.update, parameters)
        injection.set_multipliers(net, state, parameters)
    return Run(source, configuration, solver, net, state, parameters, rule)


def needs_registered_state(solver: Any, net: Any) -> bool:
    """Return whether Caffe will index its parameter table by the hook's blob count.

    HDF5 snapshots and debug_info do; blobs that the net does not know of would crash there.
    """
    hdf5 = solver.snapshot_format == type(solver).HDF5
    return bool(hdf5 or solver.debug_info or net.debug_info)


def _override(solver: Any, name: str, value: Any) -> None:
    if isinstance(value, list):
        solver.ClearField(name)
        getattr(solver, name).extend(value)
    else:
        setattr(solver, name, value)


def _rule(source: Path, configured: Optional[str], solver_type: str) -> str:
    rule = configured or solver_type.lower()
    if rule not in RULES:
        asked = f"update.rule: found '{rule}'" if configured else f"type: found '{solver_type}'"
        raise UserError(f"{source}: {asked}, allowed are {', '.join(RULES)}{nearest(rule, RULES)}")
    return rule


def _apply_groups(
    source: Path, update: UpdateOptions, parameters: List[LearnableParameter]
) -> None:
    for number, group in enumerate(update.params):
        if not any(fnmatchcase(p.name, group.match) for p in parameters):
            names = ", ".join(p.name for p in parameters)
            raise UserError(
                f"{source}: update.params[{number}].match: '{group.match}' matches no parameter; "
                f"there are {names}"
            )
    for parameter in parameters:
        for group in update.params:
            if fnmatchcase(parameter.name, group.match):
                for multiplier in ("lr_mult", "decay_mult"):
                    value = getattr(group, multiplier)
                    if value is not None:
                        setattr(parameter, multiplier, float(value))
                break
