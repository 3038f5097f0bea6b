"""The parameter groups of a YAML: which one applies to a parameter, and what that changes."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from caffe_pysgd.errors import SettingError, UserError
from caffe_pysgd.run.configuration import ParameterGroup, UpdateOptions
from caffe_pysgd.stock.learnable import LearnableParameter
from caffe_pysgd.update import HyperParameters, check, make_rule
from caffe_pysgd.update.policies.plateau import check_own

_NONE = ParameterGroup(match="*")


def assign(
    source: Path, update: UpdateOptions, parameters: Sequence[LearnableParameter]
) -> List[ParameterGroup]:
    """Return the first group that matches each parameter, or one that says nothing.

    Raises:
        UserError: a group matches no parameter.
    """
    for number, group in enumerate(update.params):
        if not any(fnmatchcase(p.name, group.match) for p in parameters):
            names = ", ".join(p.name for p in parameters)
            raise UserError(
                f"{source}: update.params[{number}].match: '{group.match}' matches no parameter; "
                f"there are {names}"
            )
    return [
        next((group for group in update.params if fnmatchcase(p.name, group.match)), _NONE)
        for p in parameters
    ]


def check_each(source: Path, update: UpdateOptions, h: HyperParameters, rule: str) -> None:
    """Check that every group's rule accepts its hyper-parameters.

    Raises:
        UserError: one does not.
    """
    for number, group in enumerate(update.params):
        key = f"update.params[{number}]"
        try:
            own = HyperParameters(**{**h.as_plain(), **group.hyperparameters()})
            check(own, make_rule(group.rule or rule))
            check_own(own, h)
        except SettingError as error:
            raise error.at(source, key) from error
        except UserError as error:  # of a user's own rule
            raise UserError(f"{source}: {key}: {error}") from error


def apply_multipliers(
    parameters: Sequence[LearnableParameter], groups: Sequence[ParameterGroup]
) -> Tuple[List[LearnableParameter], List[LearnableParameter]]:
    """Return the parameters with their groups' lr_mult and decay_mult, and those that changed.

    The multipliers of BatchNorm's statistics are the layer's own.
    """
    all_of_them, changed = [], []
    for parameter, group in zip(parameters, groups):
        given = {"lr_mult": group.lr_mult, "decay_mult": group.decay_mult}
        said: Dict[str, Any] = {n: float(v) for n, v in given.items() if v is not None}
        if said and not parameter.statistic:
            parameter = replace(parameter, **said)
            changed.append(parameter)
        all_of_them.append(parameter)
    return all_of_them, changed
