"""create_mnist.py on damaged digits: an LMDB of all of them, or one line and nothing left."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from types import ModuleType
from typing import List

import pytest
from helpers.examples import load_example
from helpers.mutations import mutations
from helpers.places import PROJECT

from caffe_pysgd import UserError

TOKENS = [b"\0\0\x08\x03", b"\0\0\x08\x01", b"\xff" * 4, b"\0\0\0\x1c", b"\x1f\x8b", b"\0" * 64]


def unexpected(folder: Path, script: ModuleType, count: int) -> List[str]:
    data = folder / "data"
    shutil.copytree(PROJECT / "examples/mnist/data", data)
    sound = data / "t10k-labels-idx1-ubyte.gz"
    raw = gzip.decompress(sound.read_bytes())
    half = -(-count // 2)
    contents = [
        *mutations([sound.read_bytes()], TOKENS, half),
        *map(gzip.compress, mutations([raw], TOKENS, half)),
    ]
    found = []
    for number, content in enumerate(contents):
        sound.write_bytes(content)
        database = folder / "lmdb"
        try:
            script.create_database(database, data, "t10k")
        except UserError:
            if sorted(p.name for p in folder.iterdir()) != ["data"]:
                found.append(f"{number}: something was left")
        except Exception as error:
            found.append(f"{number}: {type(error).__name__}: {error}")
        shutil.rmtree(database, ignore_errors=True)
    return found


def test_damaged_digits_are_refused(workdir: Path) -> None:
    assert unexpected(workdir, load_example("mnist/create_mnist.py"), 40) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_damaged_files_are_refused(workdir: Path) -> None:
    assert unexpected(workdir, load_example("mnist/create_mnist.py"), 10_000) == []
