"""examples/mnist/create_mnist.py makes the LMDBs that Caffe's Data layers read."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import List, Tuple

import lmdb
import pytest
from helpers.examples import load_example
from helpers.places import BIN, PROJECT

from caffe_pysgd import UserError

EXAMPLE = PROJECT / "examples" / "mnist"


@pytest.fixture
def script() -> ModuleType:
    """The script as a module."""
    return load_example("mnist/create_mnist.py")


def test_databases_hold_all_digits(script: ModuleType, tmp_path: Path) -> None:
    script.create_mnist(tmp_path)

    assert sorted(place.name for place in tmp_path.iterdir()) == sorted(script.DATABASES)
    assert len(records(tmp_path / "mnist_train_lmdb")) == 9000
    assert len(records(tmp_path / "mnist_test_lmdb")) == 1000


def test_databases_that_are_there_are_left_alone(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.create_mnist(tmp_path)
    before = [(tmp_path / name / "data.mdb").stat().st_mtime_ns for name in script.DATABASES]
    assert capsys.readouterr().err.count("making ") == 2
    script.create_mnist(tmp_path)

    after = [(tmp_path / name / "data.mdb").stat().st_mtime_ns for name in script.DATABASES]
    assert after == before
    assert capsys.readouterr().err == ""


def test_damaged_digits_are_named_and_leave_nothing_behind(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "data", tmp_path / "data")
    shutil.copy(EXAMPLE / "create_mnist.py", tmp_path)
    images = tmp_path / "data" / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:10000])
    run = subprocess.run(
        [sys.executable, str(tmp_path / "create_mnist.py")], stderr=subprocess.PIPE, text=True
    )

    assert run.returncode == 2
    assert run.stderr.splitlines()[1:] == [
        f"create_mnist.py: {images} is missing or damaged (Compressed file ended before the "
        "end-of-stream marker was reached): restore it with git checkout"
    ]
    assert sorted(place.name for place in tmp_path.iterdir()) == ["create_mnist.py", "data"]


def test_records_are_those_of_caffes_own_tool(script: ModuleType, tmp_path: Path) -> None:
    tool = BIN / "convert_mnist_data"
    if not tool.exists():
        pytest.skip("this Caffe came without convert_mnist_data")
    script.create_mnist(tmp_path)
    files = []
    for archive in sorted((EXAMPLE / "data").glob("t10k-*.gz")):
        files.append(tmp_path / archive.stem)
        files[-1].write_bytes(gzip.decompress(archive.read_bytes()))
    subprocess.run([tool, *files, tmp_path / "theirs"], check=True, capture_output=True)

    assert records(tmp_path / "mnist_test_lmdb") == records(tmp_path / "theirs")


def test_without_the_package_lmdb(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="the package lmdb is missing: pip install lmdb"):
        script.create_mnist(tmp_path)


def records(database: Path) -> List[Tuple[bytes, bytes]]:
    with lmdb.open(str(database), readonly=True, lock=False) as environment:
        return list(environment.begin().cursor())
