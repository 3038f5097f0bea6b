"""An audit in the formats of others: CSV, Parquet, and the event files of TensorBoard."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import List, Optional

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.scan import Progress
from caffe_pysgd.errors import UserError
from caffe_pysgd.optional import needed
from caffe_pysgd.views.export.tables import EVERYTHING, Selection, Source

FORMATS = {"tensorboard": "tensorboardX", "csv": "csv", "parquet": "pyarrow"}
"""The formats, and the module that each needs."""


def export(
    run: Path,
    format: str,
    folder: Path,
    selection: Selection = EVERYTHING,
    progress: Optional[Progress] = None,
) -> List[Path]:
    """Write what an audit holds into a folder, which is made if need be.

    What an earlier export of that format left there under the same names is replaced; nothing else
    is touched. Of iterations recorded twice, those count that led to the present weights.

    Args:
        run: a run directory, or an audit.
        format: one of ``FORMATS``.
        folder: where to write.
        selection: what of the audit.
        progress: is told how many parts of how many were written.

    Returns:
        the files written.

    Raises:
        UserError: there is no audit, or it has nothing of what is selected; what the format needs
            is not installed, or nothing can be written there.
    """
    needed(FORMATS[format], f"--format {format} needs {FORMATS[format]}", format)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give a folder to export to with -o DIR")
    writer = import_module(f"caffe_pysgd.views.export.{format}_format")
    with open_audit(run) as store:
        store.manifest()  # nothing is written for an audit that holds nothing
        files: List[Path] = writer.write(Source(store, selection, progress), folder)
    return files
