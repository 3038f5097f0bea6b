"""A small disk of a test's own, which can be full and read-only, for root too."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Iterator

import pytest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty folder with a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("to mount a file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change it: ``ro``, ``rw``, ``size=64k``."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
