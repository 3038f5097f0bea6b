"""``caffe-pysgd audit``: the commands around a recorded run."""

from __future__ import annotations

import click

from caffe_pysgd.cli.lazy import LazyGroup


@click.group(cls=LazyGroup, package=__name__, names=("check", "compare", "replay", "shadow"))
def audit() -> None:
    """Check, compare and replay what a run recorded; shadow a stock solver."""
