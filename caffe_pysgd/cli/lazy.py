"""A group of commands that imports a command when it runs, not when it is listed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List, Mapping, Optional

import click

from caffe_pysgd.cli.options import VERBOSITY
from caffe_pysgd.errors import UserError, nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """Commands by the name of their module: doctor must run where what others need is broken.

    Args:
        package: the package of the modules, each with a command of its own name.
        summaries: the commands in the order in which help lists them, each with what it does in a
            few words. Help and completion answer from these, without an import.
    """

    def __init__(
        self, *arguments: Any, package: str, summaries: Mapping[str, str], **others: Any
    ) -> None:
        super().__init__(*arguments, **others)
        self._package, self._summaries = package, summaries

    def list_commands(self, context: click.Context) -> List[str]:
        return list(self._summaries)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))

    def shell_complete(self, context: click.Context, incomplete: str) -> List[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [
            *(
                CompletionItem(name, help=summary)
                for name, summary in self._summaries.items()
                if name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, context, incomplete),
        ]

    def resolve_command(self, context: click.Context, arguments: List[str]) -> Any:
        name = arguments[0]
        if name not in self._summaries and not name.startswith("-"):
            names = self._summaries
            hint = nearest(name, names) or f"; expected one of {', '.join(names)}"
            context.fail(f"No such command '{name}'{hint}")
        return super().resolve_command(context, arguments)

    def get_command(self, context: click.Context, name: str) -> Optional[click.Command]:
        if name not in self._summaries:
            return None
        command: click.Command = getattr(importlib.import_module(f"{self._package}.{name}"), name)
        if not isinstance(command, click.Group):
            command.params.extend(option for option in VERBOSITY if option not in command.params)
        return command

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (UserError, click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:  # a mix of versions can raise anything
            if not _while_importing(error):
                raise
            raise UserError(
                f"{context.invoked_subcommand} cannot be loaded: {type(error).__name__}: {error}; "
                "'caffe-pysgd doctor' looks for the reason"
            ) from error


def _while_importing(error: Exception) -> bool:
    """Return whether an error was raised by a module that was being imported, or by its absence."""
    import traceback  # which few commands need

    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, ImportError) or any(f.f_code.co_name == "<module>" for f in frames)
