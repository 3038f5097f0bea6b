"""A run, resolved: what the configuration, the solver file and the net file come to together."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from caffe_pysgd import pycaffe
from caffe_pysgd.config import Configuration, ParameterGroup, UpdateOptions, read_configuration
from caffe_pysgd.errors import UserError, nearest
from caffe_pysgd.files import write_whole
from caffe_pysgd.prototxt import injection
from caffe_pysgd.prototxt.in_net import AuditSettings, ParameterSettings, UpdateSettings
from caffe_pysgd.prototxt.parameters import LearnableParameter, learnable_parameters
from caffe_pysgd.prototxt.solver import (
    hyperparameters,
    read_solver,
    read_train_net,
    train_state,
)
from caffe_pysgd.prototxt.taps import add_taps
from caffe_pysgd.prototxt.text import to_text
from caffe_pysgd.update import (
    NATIVE_NAMES,
    NATIVE_RULES,
    HyperParameters,
    check,
    find_rule,
    lr_policies,
    make_rule,
)

_NO_GROUP = ParameterGroup(match="*")


@dataclass
class Run:
    """Everything that is known about a run before it starts.

    Attributes:
        source: the file that the user named.
        configuration: what the YAML says.
        solver: the ``SolverParameter``, upgraded, with the YAML's hyper-parameters written in.
        h: the hyper-parameters.
        net: the train net's ``NetParameter``, with the YAML's multipliers written in.
        state: the ``NetState`` of the train net.
        parameters: the learnable parameters in Caffe's order.
        groups: for each of them the YAML's group that applies to it.
        rule: the update rule's name.
    """

    source: Path
    configuration: Configuration
    solver: Any
    h: HyperParameters
    net: Any
    state: Any
    parameters: List[LearnableParameter]
    groups: List[ParameterGroup]
    rule: str

    @property
    def update(self) -> UpdateOptions:
        """How the update is computed."""
        return self.configuration.update

    def settings(self, registered: bool = False) -> UpdateSettings:
        """Return what the in-net layers are told.

        Args:
            registered: register the state blobs with the net even where the solver does not need
                it, for a start from an HDF5 model.
        """
        return UpdateSettings(
            rule=self.rule,
            kernels=self.update.kernels,
            exact=self.update.exact,
            hyperparameters=self.h.as_plain(),
            parameters=tuple(map(self._parameter_settings, self.parameters, self.groups)),
            display=self.solver.display,
            resume=self.update.resume,
            registered=registered or needs_registered_state(self.solver, self.net),
            module_path=_module_path(self.source) if _names_modules(self.update) else "",
        )

    def _parameter_settings(
        self, parameter: LearnableParameter, group: ParameterGroup
    ) -> ParameterSettings:
        rule = group.rule or self.rule
        # BatchNorm's statistics are no weights; Caffe's own solvers leave them as they are, but
        # keep a history of them, which is part of the bits.
        kept = parameter.statistic and rule not in NATIVE_NAMES
        return ParameterSettings(
            parameter.name,
            parameter.shape,
            parameter.lr_mult,
            parameter.decay_mult,
            rule,
            find_rule(rule).slots,
            group.hyperparameters(),
            group.freeze_until or 0,
            0 if kept else group.freeze_from,
            parameter.statistic,
        )

    def _beyond_caffe(self) -> str:
        """Return what of this run the native solver cannot do, or an empty string."""
        if self.rule not in NATIVE_NAMES:
            return f"rule '{self.rule}'"
        if self.h.lr_policy not in lr_policies.POLICIES:
            return f"lr_policy '{self.h.lr_policy}'"
        if self.h.unknown_to_caffe():
            return self.h.unknown_to_caffe()
        for number, group in enumerate(self.update.params):
            own = group.model_dump(exclude_none=True, exclude={"match", "lr_mult", "decay_mult"})
            if own:
                return f"{next(iter(own))} for params[{number}] ('{group.match}')"
        return ""

    def caffe_knows_the_rate(self) -> bool:
        """Return whether Caffe can compute the rate, and show it in its log."""
        return self.h.lr_policy in lr_policies.POLICIES and self.h.warmup_iter == 0

    def refuse_beyond_caffe(self) -> None:
        """Check that there is a stock run to compare with.

        Raises:
            UserError: the native solver cannot do what this run does.
        """
        beyond = self._beyond_caffe()
        if beyond:
            raise UserError(
                f"{self.source}: Caffe has no {beyond}: there is no stock run to compare with"
            )

    def write_stock(self, directory: Path) -> Path:
        """Write the run, resolved, for the native solver into a folder; return the solver file."""
        solver = type(self.solver)()
        solver.CopyFrom(self.solver)
        injection.replace_train_net(solver, directory / "net.prototxt")
        return self._write(directory, solver, self.net)

    def write_injected(
        self, directory: Path, registered: bool = False, audit: Optional[AuditSettings] = None
    ) -> Path:
        """Write the run with Python's update into a folder; return the solver file.

        Args:
            directory: the folder.
            registered: as for :meth:`settings`.
            audit: what is to be recorded.

        Raises:
            UserError: Caffe was built without the Python layer, or a file cannot be written.
        """
        settings, net = self.settings(registered), self.net
        pycaffe.require_python_layer(pycaffe.compiled().layer_type_list())
        if audit:
            net, complete = add_taps(net, self.state, self.solver, audit.file)
            settings = replace(settings, audit=replace(audit, records_loss=complete))
        net = injection.inject_net(net, self.state, self.parameters, settings)
        net_path = directory / "net.prototxt"
        solver = injection.neutral_solver(self.solver, net_path, self.caffe_knows_the_rate())
        return self._write(directory, solver, net)

    def _write(self, directory: Path, solver: Any, net: Any) -> Path:
        origin = f"# Written by caffe-pysgd from {self.source}.\n"
        solver_path = directory / "solver.prototxt"
        write_whole(
            {
                directory / "net.prototxt": origin + to_text(net),
                solver_path: origin + to_text(solver),
            }
        )
        return solver_path


def resolve(
    source: Path,
    iterations: Optional[int] = None,
    level: Optional[int] = 0,
    stages: Tuple[str, ...] = (),
) -> Run:
    """Read and check everything that a run needs, and let Caffe build its train net once.

    Args:
        source: a YAML or a solver file.
        iterations: replaces ``max_iter``.
        level, stages: as given to ``caffe train``; a level of None stands for a solver in Python,
            which has no command line.

    Raises:
        UserError: anything that would stop the run later.
    """
    configuration = read_configuration(source)
    update = configuration.update
    solver = read_solver(configuration.solver)
    given = update.hyperparameters()
    if iterations is not None:
        given["max_iter"] = iterations
    beyond = {name: given.pop(name) for name in HyperParameters.beyond_caffe() if name in given}
    for name, value in given.items():
        set_field(solver, name, value)
    if _names_modules(update):
        sys.path.insert(0, _module_path(source))
    rule = _choose_rule(source, update, solver)
    where, net = read_train_net(configuration.solver, solver)
    injection.refuse_injected(where, net)
    try:
        h = hyperparameters(solver, beyond)
        check(h, make_rule(rule))
    except (ValueError, UserError) as error:
        raise UserError(f"{source}: {error}") from error
    state = train_state(solver, net, level, stages)
    parameters = learnable_parameters(configuration.solver, solver, where, net, state)
    groups = _assign_groups(source, update, parameters)
    for number, group in enumerate(update.params):
        _check_group(f"{source}: update.params[{number}]", group, h, rule)
    injection.set_multipliers(net, state, _set_multipliers(parameters, groups))
    return Run(source, configuration, solver, h, net, state, parameters, groups, rule)


def needs_registered_state(solver: Any, net: Any) -> bool:
    """Return whether Caffe will index its parameter table by the hook's blob count.

    HDF5 snapshots and debug_info do; blobs that the net does not know of would crash there.
    """
    hdf5 = solver.snapshot_format == type(solver).HDF5
    return bool(hdf5 or solver.debug_info or net.debug_info)


def _names_modules(update: UpdateOptions) -> bool:
    """Return whether a rule or a policy is the user's own, ``module:name``."""
    names = [update.rule, update.lr_policy]
    names += [name for group in update.params for name in (group.rule, group.lr_policy)]
    return any(":" in name for name in names if name)


def _module_path(source: Path) -> str:
    """Return the folder of the user's own modules: the one that the YAML is in."""
    return str(source.parent)


def set_field(solver: Any, name: str, value: Any) -> None:
    """Set a field of a ``SolverParameter``, a repeated one from a list or tuple."""
    if isinstance(value, (list, tuple)):
        solver.ClearField(name)
        getattr(solver, name).extend(value)
    else:
        setattr(solver, name, value)


def _choose_rule(source: Path, update: UpdateOptions, solver: Any) -> str:
    """Return the rule's name; where Caffe has it, the solver's type follows the YAML."""
    if update.rule is None:
        if solver.type not in NATIVE_RULES:
            raise UserError(
                f"{source}: type: found '{solver.type}', allowed are {', '.join(NATIVE_RULES)}"
                + nearest(solver.type, NATIVE_RULES)
            )
        return NATIVE_RULES[solver.type].name
    _find_rule(f"{source}: update.rule", update.rule)
    for solver_type, rule in NATIVE_RULES.items():
        if rule.name == update.rule:
            solver.type = solver_type
    return update.rule


def _find_rule(where: str, name: str) -> Any:
    try:
        return find_rule(name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _assign_groups(
    source: Path, update: UpdateOptions, parameters: List[LearnableParameter]
) -> List[ParameterGroup]:
    """Return the first group that matches each parameter, or one that says nothing."""
    for number, group in enumerate(update.params):
        if not any(fnmatchcase(p.name, group.match) for p in parameters):
            names = ", ".join(p.name for p in parameters)
            raise UserError(
                f"{source}: update.params[{number}].match: '{group.match}' matches no parameter; "
                f"there are {names}"
            )
    return [
        next((group for group in update.params if fnmatchcase(p.name, group.match)), _NO_GROUP)
        for p in parameters
    ]


def _check_group(where: str, group: ParameterGroup, h: HyperParameters, rule: str) -> None:
    if group.rule is not None:
        _find_rule(f"{where}.rule", group.rule)
    own: Dict[str, Any] = {**h.as_plain(), **group.hyperparameters()}
    try:
        check(HyperParameters(**own), make_rule(group.rule or rule))
    except (ValueError, UserError) as error:
        raise UserError(f"{where}.{error}") from error


def _set_multipliers(
    parameters: List[LearnableParameter], groups: List[ParameterGroup]
) -> List[LearnableParameter]:
    """Apply the groups' lr_mult and decay_mult; return the parameters that have new ones."""
    changed = []
    for parameter, group in zip(parameters, groups):
        given = {"lr_mult": group.lr_mult, "decay_mult": group.decay_mult}
        if parameter.statistic or set(given.values()) == {None}:
            continue
        for multiplier, value in given.items():
            if value is not None:
                setattr(parameter, multiplier, float(value))
        changed.append(parameter)
    return changed
