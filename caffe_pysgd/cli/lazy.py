"""A group of commands that imports a command when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any, List, Optional, Sequence

import click

from caffe_pysgd.errors import UserError, nearest


class LazyGroup(click.Group):
    """Commands by the name of their module: doctor must run where what others need is broken.

    Args:
        package: the package of the modules, each with a command of its own name.
        names: the commands, in the order in which help lists them.
    """

    def __init__(self, *arguments: Any, package: str, names: Sequence[str], **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._package, self._names = package, names

    def list_commands(self, context: click.Context) -> List[str]:
        return list(self._names)

    def resolve_command(self, context: click.Context, arguments: List[str]) -> Any:
        name = arguments[0]
        if name not in self._names and not name.startswith("-"):
            hint = nearest(name, self._names) or f"; expected one of {', '.join(self._names)}"
            context.fail(f"No such command '{name}'{hint}")
        return super().resolve_command(context, arguments)

    def get_command(self, context: click.Context, name: str) -> Optional[click.Command]:
        if name not in self._names:
            return None
        try:
            module = importlib.import_module(f"{self._package}.{name}")
        except Exception as error:  # a mix of versions can raise anything
            raise UserError(
                f"{name} cannot be loaded: {type(error).__name__}: {error}; "
                "'caffe-pysgd doctor' looks for the reason"
            ) from error
        command: click.Command = getattr(module, name)
        return command
