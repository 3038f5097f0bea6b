"""The update rules, and how they are found by name."""

from __future__ import annotations

from typing import Dict, Type

from caffe_pysgd.errors import SettingError, one_of
from caffe_pysgd.update.plugins import import_by_name
from caffe_pysgd.update.rules.base import ParameterStep, UpdateRule
from caffe_pysgd.update.rules.beyond import (
    LARS,
    SGDW,
    Adamax,
    AdamW,
    AMSGrad,
    Lamb,
    Lion,
    NAdam,
    PyTorchSGD,
)
from caffe_pysgd.update.rules.caffe import SGD, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp

_NATIVE = (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)
_BEYOND = (PyTorchSGD, SGDW, AdamW, AMSGrad, NAdam, Adamax, LARS, Lamb, Lion)

RULES: Dict[str, Type[UpdateRule]] = {rule.name: rule for rule in (*_NATIVE, *_BEYOND)}
NATIVE_RULES = {rule.__name__: rule for rule in _NATIVE}  # by Caffe's solver type
NATIVE_NAMES = frozenset(rule.name for rule in _NATIVE)


def find_rule(name: str) -> Type[UpdateRule]:
    """Return the rule of that name, or the class that ``module:Class`` names.

    Raises:
        SettingError: there is none, or the class is not an :class:`UpdateRule`.
    """
    if name in RULES:
        return RULES[name]
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise SettingError("rule", name, one_of(RULES, name, " or module:Class"))
    found = import_by_name("rule", module_name, class_name)
    if not (isinstance(found, type) and issubclass(found, UpdateRule)):
        raise SettingError("rule", name, "a subclass of caffe_pysgd.UpdateRule")
    if not isinstance(found.slots, tuple):
        raise SettingError("rule", name, problem=f"its slots are {found.slots!r}, not a tuple")
    return found


def make_rule(name: str) -> UpdateRule:
    """Return an instance of the rule of that name.

    Raises:
        SettingError: there is none, or it cannot be made.
    """
    rule = find_rule(name)
    try:
        return rule()
    except Exception as error:
        problem = f"{name}() raised {type(error).__name__}: {error}"
        raise SettingError("rule", name, problem=problem) from error


__all__ = [
    "NATIVE_NAMES",
    "NATIVE_RULES",
    "RULES",
    "ParameterStep",
    "UpdateRule",
    "find_rule",
    "make_rule",
]
