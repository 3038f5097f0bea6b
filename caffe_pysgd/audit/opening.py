"""Opening an audit to be read: who knows what a damaged file is."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError


@contextmanager
def open_audit(path: Path) -> Iterator[Store]:
    """Open an audit; what goes wrong with a damaged one is said in one line.

    A reader need not expect that a number is a text or that half of a manifest is there: where it
    stumbles, the ledger says whether the file is as it was recorded.

    Raises:
        UserError: there is no audit, or it is damaged.
    """
    with Store(path) as store:
        try:
            yield store
        except UserError:
            raise
        except Exception as error:
            found = check_ledger(store.path)
            if found.intact:
                raise
            raise UserError(f"{store.path}: is damaged: {found}") from error
