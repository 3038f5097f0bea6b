"""``caffe-pysgd sweep``: many runs from one YAML."""

from __future__ import annotations

from typing import List

import click

from caffe_pysgd.cli.lazy import LazyGroup


class _RunByDefault(LazyGroup):
    """Commands of which ``run`` need not be typed."""

    def parse_args(self, context: click.Context, arguments: List[str]) -> List[str]:
        if arguments and arguments[0] not in (*self.list_commands(context), "-h", "--help"):
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)

    def collect_usage_pieces(self, context: click.Context) -> List[str]:
        return ["SWEEP.yaml | COMMAND [ARGS]..."]


_COMMANDS = {
    "run": "Train the runs of a sweep; need not be typed.",
    "status": "Show the runs of a sweep, and the ranking so far.",
    "report": "Write the page and the CSV of a sweep.",
    "best": "Print the YAML that trains the best run again.",
}


@click.group(cls=_RunByDefault, package=__name__, summaries=_COMMANDS)
def sweep() -> None:
    """Train many runs: `sweep SWEEP.yaml`, short for `sweep run SWEEP.yaml`."""
