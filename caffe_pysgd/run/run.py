"""A run, resolved: what the configuration, the solver file and the net file come to together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Tuple

from caffe_pysgd.display import counted
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import write_files
from caffe_pysgd.run.configuration import Configuration, ParameterGroup, UpdateOptions
from caffe_pysgd.run.outputs import NET, ORIGIN, SOLVER
from caffe_pysgd.run.settings import (
    KeepSettings,
    LoggerSettings,
    ParameterSettings,
    UpdateSettings,
)
from caffe_pysgd.stock.learnable import LearnableParameter
from caffe_pysgd.stock.prototxt import to_text
from caffe_pysgd.stock.solver_file import replace_train_net, set_field
from caffe_pysgd.update import NATIVE_NAMES, HyperParameters, find_rule
from caffe_pysgd.update.policies import caffe as caffes


def run_directory(source: Path, configuration: Configuration) -> Path:
    """Return where the files of a run go: into its ``run_dir``, or ``runs/NAME``."""
    return configuration.run_dir or Path("runs", source.stem)


@dataclass(frozen=True, repr=False)
class Run:
    """Everything that is known about a run before it starts.

    Attributes:
        source: the file that the user named.
        configuration: what the YAML says.
        solver: the ``SolverParameter``, upgraded, with the YAML's hyper-parameters written in; to
            be read only, see :meth:`with_solver`.
        h: the hyper-parameters.
        where: where the train net is written.
        net: its ``NetParameter``, with the YAML's multipliers written in.
        state: the ``NetState`` of the train net.
        parameters: the learnable parameters in Caffe's order; none where only the program that is
            going to build the net can.
        groups: for each of them the YAML's group that applies to it.
        rule: the update rule's name.
        snapshot: the solver state that a command begins with; empty for none.
    """

    source: Path
    configuration: Configuration
    solver: Any
    h: HyperParameters
    where: str
    net: Any
    state: Any
    parameters: Tuple[LearnableParameter, ...]
    groups: Tuple[ParameterGroup, ...]
    rule: str
    snapshot: str = ""

    def __repr__(self) -> str:
        parameters = counted(len(self.parameters), "parameter")
        return (
            f"<Run {self.source}: net {self.net.name}, rule {self.rule}, {parameters}, "
            f"max_iter {self.solver.max_iter}>"
        )

    @property
    def update(self) -> UpdateOptions:
        """How the update is computed."""
        return self.configuration.update

    @property
    def directory(self) -> Path:
        """Where the run's files go."""
        return run_directory(self.source, self.configuration)

    @property
    def takes_snapshots(self) -> bool:
        """Whether any is taken that nobody asks for by a signal or a call."""
        return bool(self.solver.snapshot or self.solver.snapshot_after_train)

    @property
    def hdf5(self) -> bool:
        """Whether snapshots are HDF5 files."""
        return bool(self.solver.snapshot_format == type(self.solver).HDF5)

    @property
    def module_path(self) -> str:
        """The folder of the user's own modules; empty where no rule, policy or logger is one."""
        named = self.update.names_modules() or any(":" in n for n in self.configuration.loggers)
        return str(self.configuration.module_path) if named else ""

    def loggers(self, directory: Path) -> Optional[LoggerSettings]:
        """Return who is told of the run while it trains in a folder; None for nobody."""
        names = tuple(dict.fromkeys(self.configuration.loggers))
        every = self.configuration.log_every or self.solver.display or 50
        return LoggerSettings(names, str(directory), every) if names else None

    def with_solver(self, **fields: Any) -> Run:
        """Return this run with other values in fields of its solver, none of them the update's.

        Args:
            fields: by name; a message is copied, a list replaces a repeated field.
        """
        solver = type(self.solver)()
        solver.CopyFrom(self.solver)
        for name, value in fields.items():
            set_field(solver, name, value)
        return replace(self, solver=solver)

    def configured(self, **options: Any) -> Run:
        """Return this run with other values of its configuration's keys."""
        return replace(self, configuration=self.configuration.model_copy(update=options))

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
            registered=registered or self._needs_registered_state(),
            module_path=self.module_path,
            on_nonfinite=self.configuration.on_nonfinite,
            log_outputs=self.update.log_outputs,
            keep=self._keep_settings(),
        )

    def _keep_settings(self) -> Optional[KeepSettings]:
        """Return which snapshots stay, if not all; the newest does in any case."""
        options = self.configuration.snapshots
        best = options.keep_best
        if options.keep_last is None and best is None:
            return None
        name = (best.max or best.min or "") if best else ""
        highest = bool(best and best.max)
        prefix = self.solver.snapshot_prefix
        return KeepSettings(prefix, self.hdf5, options.keep_last or 1, name, highest)

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

    def _needs_registered_state(self) -> bool:
        """Return whether Caffe will index its parameter table by the hook's blob count.

        HDF5 snapshots and debug_info do; blobs that the net does not know of would crash there.
        """
        return bool(self.hdf5 or self.solver.debug_info or self.net.debug_info)

    def refuse_beyond_caffe(self) -> None:
        """Check that there is a stock run to compare with.

        Raises:
            UserError: the native solver cannot do what this run does.
        """
        beyond = self.beyond_caffe()
        if beyond:
            raise UserError(
                f"{self.source}: Caffe has no {beyond}: there is no stock run to compare with"
            )

    def beyond_caffe(self) -> str:
        """Return what of this run the native solver cannot do, or an empty string."""
        if self.rule not in NATIVE_NAMES:
            return f"rule '{self.rule}'"
        if self.h.lr_policy not in caffes.POLICIES:
            return f"lr_policy '{self.h.lr_policy}'"
        if self.h.unknown_to_caffe():
            return self.h.unknown_to_caffe()
        for number, group in enumerate(self.update.params):
            own = group.model_dump(exclude_none=True, exclude={"match", "lr_mult", "decay_mult"})
            if own:
                return f"{next(iter(own))} for params[{number}] ('{group.match}')"
        return ""

    def write_stock(self, directory: Path) -> Path:
        """Write the run, resolved, for the native solver into a folder; return the solver file."""
        solver = type(self.solver)()
        solver.CopyFrom(self.solver)
        replace_train_net(solver, directory / NET)
        return self.write(directory, solver, self.net)

    def write(self, directory: Path, solver: Any, net: Any) -> Path:
        """Write a solver and a net made of this run into a folder; return the solver file.

        Raises:
            UserError: one of them cannot be written; the other stays as it was.
        """
        origin = f"{ORIGIN} from {self.source}.\n"
        messages = {directory / NET: net, directory / SOLVER: solver}
        write_files({path: origin + to_text(message) for path, message in messages.items()})
        return directory / SOLVER
