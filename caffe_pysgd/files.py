"""Writing files so that a crash never leaves half of one under its real name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from caffe_pysgd.errors import UserError


def write_whole(path: Path, content: str) -> None:
    """Write ``content`` beside ``path`` and rename it into place, making its folder if need be.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            os.fchmod(handle, 0o666 & ~_umask())
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
