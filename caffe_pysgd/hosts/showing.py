"""How the solvers in Python, and their history, show themselves."""

from __future__ import annotations

from typing import Dict, Optional

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.display import counted, html_table
from caffe_pysgd.run.run import Run
from caffe_pysgd.update import Updater
from caffe_pysgd.update.statistics import norm


class History(Dict[str, Floats]):
    """The history by parameter name: a dictionary whose arrays are the solver's own."""

    def __repr__(self) -> str:
        some = [f"{name} {array.shape}" for name, array in list(self.items())[:3]]
        more = ", ..." if len(self) > len(some) else ""
        return f"<History of {counted(len(self), 'array')}: {', '.join(some)}{more}>"

    def _repr_html_(self) -> str:
        rows = (
            (name, array.shape, f"{norm(array.ravel()):.4g}", f"{np.abs(array).max():.4g}")
            for name, array in self.items()
        )
        return html_table(repr(self), ("array", "shape", "L2 norm", "largest |value|"), rows)


def solver_line(
    kind: str,
    run: Run,
    updater: Updater,
    iteration: int,
    rate: Optional[float] = None,
    loss: Optional[np.float32] = None,
) -> str:
    """Return a solver in one line.

    Args:
        kind: its class.
        run: what it trains.
        updater: its parameters.
        iteration: the number of updates done.
        rate, loss: the global rate and the smoothed loss, where they are known.
    """
    values = sum(parameter.count for parameter in updater.parameters)
    facts = [
        f"iteration {iteration} of {run.solver.max_iter}",
        *([f"loss {loss:.4g}"] if loss else []),
        f"rule {run.rule}",
        *([] if rate is None else [f"lr {rate:.4g}"]),
        f"{counted(len(run.parameters), 'parameter')} ({values:,} values)",
    ]
    return f"<{kind} {run.net.name or run.source.name}: {', '.join(facts)}>"


def solver_html(line: str, updater: Updater) -> str:
    """Return the same, with a table of the parameters."""
    rows = (
        (p.name, f"{p.count:,}", f"{p.lr_mult:g}", f"{p.decay_mult:g}", f"{norm(p.data):.4g}")
        for p in updater.parameters
    )
    return html_table(line, ("parameter", "values", "lr_mult", "decay_mult", "L2 norm"), rows)
