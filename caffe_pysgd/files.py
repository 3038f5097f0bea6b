"""Writing files so that a crash never leaves half of one under its real name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Dict, Mapping

from caffe_pysgd.errors import UserError


def write_whole(contents: Mapping[Path, str]) -> None:
    """Write files beside their places, and rename them once all are written.

    Their folders are made if need be.

    Raises:
        UserError: one of them cannot be written; the others stay as they were.
    """
    written: Dict[Path, str] = {}
    path = Path()
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise UserError(f"{path}: is a folder; a file is to be written there")
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, written[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.fchmod(handle, 0o666 & ~_umask())
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
        for path in contents:
            os.replace(written.pop(path), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        for beside in written.values():
            os.unlink(beside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
