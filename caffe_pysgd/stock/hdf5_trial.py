"""HDF5 snapshots, read on trial in the helper.

HDF5's library crashes over some damaged files, and searches others without an end.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import snapshots
from caffe_pysgd.stock.helper import run_with_caffe

with suppress(ImportError):  # once in the helper, not in each of its children
    import h5py  # noqa: F401

_MOST_SECONDS = 10  # of work, not of waiting for a disk; a GB takes about one


def survives(read: str, path: Path) -> bool:
    """Return whether a process comes to an end that reads a file.

    Args:
        read: the function in ``snapshots`` that reads it.
        path: the file.
    """
    return run_with_caffe(_read, read, str(path)).status >= 0


def _read(read: str, path: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
    with suppress(UserError):  # the caller will come to it, too
        getattr(snapshots, read)(Path(path))
