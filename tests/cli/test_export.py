"""``export``: the command, and what it says where something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from helpers.audits import write_audit
from helpers.failures import failure


@pytest.mark.parametrize(
    ["format", "count", "module"],
    [("csv", 11, None), ("parquet", 11, "pyarrow"), ("tensorboard", 1, "tensorboardX")],
)
def test_each_format_is_written_and_its_extra_named(
    cli: Callable, workdir: Path, format: str, count: int, module: str
) -> None:
    write_audit(Path("run", "audit.sqlite"), 3)
    done = cli("export", "run", "--format", format, "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == count
    assert all(Path(line).is_file() for line in done.stdout.splitlines())
    if module:
        Path(f"{module}.py").write_text("raise ImportError('not here')\n")
        said = failure(
            cli("export", "run", "--format", format, "-o", "other", PYTHONPATH=str(workdir))
        )
        assert f"pip install 'caffe-pysgd[{format}]'" in said
        assert not Path("other").exists()


def test_an_unknown_format_is_refused_with_those_there_are(cli: Callable, workdir: Path) -> None:
    said = failure(cli("export", "run", "--format", "xml", "-o", "out"))
    assert all(format in said for format in ("tensorboard", "csv", "parquet"))
