"""uPlot is in the package as its authors published it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import caffe_pysgd.views.report

VENDOR = Path(caffe_pysgd.views.report.__file__).parent / "vendor" / "uplot"


def test_uplot_is_the_published_one() -> None:
    lines = (VENDOR / "README.md").read_text().splitlines()
    stated = dict(reversed(line.split()) for line in lines if len(line.split()[:1] or "") and
                  len(line.split()[0]) == 64)  # fmt: skip
    assert set(stated) == {file.name for file in VENDOR.iterdir()} - {"README.md"}
    for name, sha256 in stated.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == sha256
