"""``caffe-pysgd audit``: the commands around a recorded run."""

from __future__ import annotations

import importlib
from typing import List, Optional

import click

_COMMANDS = ("check", "compare", "replay", "shadow")


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, context: click.Context) -> List[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> Optional[click.Command]:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"caffe_pysgd.cli.audit.{name}")
        command: click.Command = getattr(module, name)
        return command


@click.group(cls=_Commands)
def audit() -> None:
    """Check, compare and replay what a run recorded; shadow a stock solver."""
