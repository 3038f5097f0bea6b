"""What a user names as ``module:name``: a rule or a policy of their own."""

from __future__ import annotations

import importlib

from caffe_pysgd.errors import SettingError, nearest
from caffe_pysgd.user_code import why_no_user_code


def import_by_name(field: str, module_name: str, attribute: str) -> object:
    """Return an attribute of a module of the user's, which a setting names.

    Raises:
        SettingError: the module cannot be imported, or has no such attribute; or no code of a
            user's own may run.
    """
    name = f"{module_name}:{attribute}"
    forbidden = why_no_user_code()
    if forbidden:
        problem = f"no code of a user's own is run here: {forbidden}"
        raise SettingError(field, name, problem=problem)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        problem = f"importing {module_name} failed: {type(error).__name__}: {error}"
        raise SettingError(field, name, problem=problem) from error
    try:
        return getattr(module, attribute)  # type: ignore[no-any-return]
    except AttributeError as error:
        problem = f"{module_name} has no '{attribute}'{nearest(attribute, vars(module))}"
        raise SettingError(field, name, problem=problem) from error
