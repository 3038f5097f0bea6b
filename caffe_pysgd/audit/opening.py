"""Opening an audit to be read: who knows what a damaged file is."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.seal import made_here
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError


@contextmanager
def open_audit(path: Path) -> Iterator[Store]:
    """Open an audit; what goes wrong with a damaged one is said in one line.

    A reader need not expect that a number is a text or that half of a manifest is there: where it
    stumbles, the ledger says whether the file is as it was recorded, and the seal who recorded it.

    Raises:
        UserError: there is no audit, or it is damaged or forged.
    """
    with Store(path) as store:
        try:
            yield store
        except UserError:
            raise
        except Exception as error:
            found = check_ledger(store.path)
            if not found.intact:
                raise UserError(f"{store.path}: is damaged: {found}") from error
            if _all_made_here(store):
                raise
            raise UserError(
                f"{store.path}: cannot be read: it was not recorded here by you, and holds what "
                f"was not expected ({type(error).__name__}: {str(error)[:200]})"
            ) from error


def _all_made_here(store: Store) -> bool:
    try:
        return all(made_here(store.manifest(one.session)) for one in store.sessions())
    except Exception:  # no manifest that was sealed has a kind that surprises
        return False
