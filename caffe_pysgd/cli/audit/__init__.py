"""``caffe-pysgd audit``: the commands around a recorded run."""

from __future__ import annotations

import click

from caffe_pysgd.cli.lazy import LazyGroup

_COMMANDS = {
    "check": "Say whether a ledger is intact.",
    "compare": "Find where two runs diverge.",
    "replay": "Train a recorded run again and compare.",
    "shadow": "Predict every update of the native solver and compare.",
}


@click.group(cls=LazyGroup, package=__name__, summaries=_COMMANDS)
def audit() -> None:
    """Check, compare and replay what a run recorded; shadow a stock solver."""
