"""The report: one HTML file that shows what the solver did, readable without a network."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Callable, List, Optional, Sequence

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import write_files
from caffe_pysgd.run.outputs import REPORT, refuse_foreign

MOST_RUNS = 20


def write_report(
    runs: Sequence[Path],
    output: Optional[Path] = None,
    check: bool = True,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Path:
    """Write one page that shows recorded runs, up to 20 of them over each other.

    Args:
        runs: run directories, or their audits.
        output: the file to write; ``report.html`` beside the first run's audit unless told.
        check: whether to check the ledgers.
        progress: is told how many iterations of how many were read, run by run.

    Returns:
        the file written.

    Raises:
        UserError: a run has no audit, there are too many, or the page cannot be written.
    """
    from caffe_pysgd.views.report.gathering import gather
    from caffe_pysgd.views.report.page import page

    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs: a page shows up to {MOST_RUNS}; give fewer")
    with ExitStack() as stack:
        stores = [stack.enter_context(open_audit(run)) for run in runs]
        names = distinct_names([store.path for store in stores])
        records = [
            gather(name, store, len(stores), check, progress) for name, store in zip(names, stores)
        ]
        target = output or refuse_foreign(stores[0].path.with_name(REPORT))
        write_files({target: page(records)})
    return target


def distinct_names(audits: Sequence[Path]) -> List[str]:
    """Return a short name for each audit: its folder as it was given, if that is short.

    Else as much of the folder's path as tells them apart.
    """
    given = [str(audit.parent) for audit in audits]
    if len(set(given)) == len(given) and all(
        not audit.is_absolute() and 1 <= len(audit.parts) - 1 <= 3 for audit in audits
    ):
        return given
    folders = [audit.absolute().parent for audit in audits]
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[1:][-length:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(audit) for audit in audits]
