"""A recorded run, looked at from Python: tables for pandas, plots, the report."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.store import Store
from caffe_pysgd.display import html_table
from caffe_pysgd.errors import SettingError, one_of
from caffe_pysgd.optional import needed
from caffe_pysgd.views.export.tables import (
    EVERYTHING,
    Columns,
    Source,
    columns_of,
    exported_tables,
)
from caffe_pysgd.views.report import write_report


def open_run(path: Union[str, Path]) -> RecordedRun:
    """Return a recorded run, to be looked at::

        run = caffe_pysgd.open_run("runs/lenet")
        run.to_pandas().loss.plot()

    Args:
        path: a run directory, or the audit in it. The run may still be training.

    Raises:
        UserError: there is no audit, or it holds nothing yet.
    """
    return RecordedRun(Path(path))


class RecordedRun:
    """A recorded run. Every call reads what is recorded by then.

    Of iterations that were recorded twice, because the run went on from an earlier snapshot, those
    count that led to the present weights.

    Attributes:
        path: the run directory, or the audit, as it was given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_audit(path) as store:
            store.manifest()

    @property
    def manifest(self) -> Dict[str, Any]:
        """What the last session said of itself when it began: versions, settings, files."""
        with open_audit(self.path) as store:
            return store.manifest()

    @property
    def parameters(self) -> List[str]:
        """The names of the learnable parameters, in Caffe's order."""
        with open_audit(self.path) as store:
            return [parameter.name for parameter in store.parameters()]

    def to_pandas(self, table: str = "iterations") -> Any:
        """Return a table of the audit as a ``pandas.DataFrame``.

        Args:
            table: ``iterations`` (rate, loss, norms, seconds), ``figures`` (the statistics of every
                array), ``updates`` (ratio and local rate of every parameter), ``tests``, or another
                of the audit's tables. A parameter's number has its name beside it.

        Raises:
            UserError: there is no such table, or no pandas.
        """
        tables = {one.name: one for one in exported_tables()}
        if table not in tables:
            raise SettingError("table", table, one_of(tables, table))
        pandas = _needed("pandas")
        parts: List[Columns] = []
        with open_audit(self.path) as store:
            source = Source(store, EVERYTHING)
            source.write([tables[table]], columns_of, lambda _, each: parts.extend(each))
        rows = [row for columns in parts for row in zip(*columns)]
        frame = pandas.DataFrame(rows, columns=tables[table].columns)
        return frame.set_index("iteration") if table == "iterations" else frame

    def report(self, output: Union[str, Path, None] = None, check: bool = True) -> Path:
        """Write the report of this run; return the file.

        Args:
            output: the file to write; ``report.html`` beside the audit if not given.
            check: whether to check the ledger, which reads all of it.

        Raises:
            UserError: the page cannot be written.
        """
        return write_report([self.path], None if output is None else Path(output), check)

    def plot(self, *columns: str, log: bool = False, ax: Any = None) -> Any:
        """Draw columns of the table ``iterations`` over time; return matplotlib's axes.

        Args:
            columns: such as ``loss``, ``rate``, ``gradient_l2``; the loss unless told.
            log: draw the values on a logarithmic axis.
            ax: the axes to draw on; new ones if not given.

        Raises:
            UserError: there is no matplotlib.
        """
        ax = _axes(ax, log)
        with open_audit(self.path) as store:
            for column in columns or ("loss",):
                ax.plot(*store.series(column), label=column, linewidth=1)
        ax.set_xlabel("iteration")
        ax.legend()
        return ax

    def plot_parameters(
        self, column: str = "ratio", match: str = "*", log: bool = True, ax: Any = None
    ) -> Any:
        """Draw one line for each learned parameter over time; return matplotlib's axes.

        Args:
            column: ``ratio``, how far an update moves the weights: |update| / |data|, as L2 norms;
                or ``local_rate``.
            match: the parameters to draw, as in the YAML: ``conv*``.
            log: draw the values on a logarithmic axis.
            ax: the axes to draw on; new ones if not given.

        Raises:
            UserError: no parameter has such a name, or there is no matplotlib.
        """
        ax = _axes(ax, log)
        with open_audit(self.path) as store:
            learned = [one for one in store.parameters() if not one.statistic]
            chosen = [one for one in learned if fnmatchcase(one.name, match)]
            if not chosen:
                raise SettingError("match", match, one_of([one.name for one in learned], match))
            for one in chosen:
                ax.plot(*store.updates(one.parameter, column), label=one.name, linewidth=1)
        ax.set_xlabel("iteration")
        ax.set_ylabel("|update| / |data|" if column == "ratio" else column)
        ax.legend(fontsize="small", ncol=1 + len(chosen) // 12)
        return ax

    def __repr__(self) -> str:
        with open_audit(self.path) as store:
            facts = [f"{name} {value}" for name, value in _facts(store)]
        return f"<RecordedRun {self.path}: {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        with open_audit(self.path) as store:
            rows = _facts(store)
            rows += [(f"parameter {one.name}", one.shape) for one in store.parameters()]
        return html_table(repr(self), ("", ""), rows)


def _facts(store: Store) -> List[Tuple[str, Any]]:
    span = store.span()
    facts: List[Tuple[str, Any]] = [
        ("iterations", "none" if span is None else f"{span[0]} to {span[1]}")
    ]
    losses = store.series("loss")[1]
    if len(losses):
        facts.append(("loss", f"{losses[-1]:.4g}"))
    for (net, output), (at, values) in store.tests().items():
        where = "" if net == 0 else f" of net {net}"
        facts.append((f"test {output}{where}", f"{values[-1]:.4g} at {at[-1]}"))
    facts.append(("parameters", len(store.parameters())))
    return facts


def _axes(ax: Optional[Any], log: bool) -> Any:
    if ax is None:
        ax = _needed("matplotlib.pyplot").subplots(figsize=(7, 3), constrained_layout=True)[1]
    if log:
        ax.set_yscale("log")
    return ax


def _needed(module: str) -> Any:
    return needed(module, f"this needs {module.split('.')[0]}", "notebook")
