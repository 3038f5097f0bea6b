"""What several tests of commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from helpers.places import PROJECT


@pytest.fixture
def other_venv(workdir: Path) -> Path:
    """An environment with everything that this one has but the ``caffe`` program."""
    venv = workdir / "venv"
    packages = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    python = venv / "bin" / "python3"
    python.symlink_to(os.path.realpath(sys.executable))
    (venv / "pyvenv.cfg").write_bytes(Path(sys.prefix, "pyvenv.cfg").read_bytes())
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "all.pth").write_text("\n".join([str(PROJECT), *here, ""]))
    return venv
