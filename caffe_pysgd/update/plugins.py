"""What a user names as ``module:name``: a rule or a policy of their own."""

from __future__ import annotations

import importlib

from caffe_pysgd.errors import UserError, nearest


def import_by_name(module_name: str, attribute: str) -> object:
    """Return an attribute of a module of the user's.

    Raises:
        UserError: the module cannot be imported, or has no such attribute.
    """
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{module_name}:{attribute}: importing {module_name} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, attribute)  # type: ignore[no-any-return]
    except AttributeError as error:
        raise UserError(
            f"{module_name}:{attribute}: {module_name} has no '{attribute}'"
            + nearest(attribute, vars(module))
        ) from error
