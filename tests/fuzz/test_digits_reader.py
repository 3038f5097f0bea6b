"""create_mnist.py on damaged digits: an LMDB of all of them, or one line and nothing left."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from types import ModuleType
from typing import Dict, Iterator, List

import lmdb
import pytest
from helpers.examples import load_example
from helpers.mutations import mutations
from helpers.places import PROJECT

from caffe_pysgd import UserError

TOKENS = [b"\0\0\x08\x03", b"\0\0\x08\x01", b"\xff" * 4, b"\0\0\0\x1c", b"\x1f\x8b", b"\0" * 64]
FEW = 20


IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def write_few(data: Path) -> Dict[str, bytes]:
    """Write the first digits alone, in files of the same kind; return what was zipped."""
    data.mkdir()
    raw = {}
    for name, header, each in ((IMAGES, 16, 28 * 28), (LABELS, 8, 1)):
        whole = gzip.decompress((PROJECT / "examples/mnist/data" / name).read_bytes())
        content = whole[:4] + FEW.to_bytes(4, "big") + whole[8 : header + FEW * each]
        (data / name).write_bytes(gzip.compress(content))
        raw[name] = content
    return raw


def damaged(data: Path, count: int) -> Iterator[int]:
    """Damage the images or the labels, as they are or below their zipping, one after the other."""
    raw = write_few(data)
    sound = {name: (data / name).read_bytes() for name in raw}
    each = -(-count // 4)
    ways = [
        (name, contents)
        for name in (IMAGES, LABELS)
        for contents in (
            mutations([sound[name]], TOKENS, each),
            map(gzip.compress, mutations([raw[name]], TOKENS, each)),
        )
    ]
    for number in range(count):
        name, contents = ways[number % 4]
        (data / name).write_bytes(next(contents))
        yield number
        (data / name).write_bytes(sound[name])


def unexpected(folder: Path, script: ModuleType, count: int) -> List[str]:
    """Return what so many damaged files led to besides refusals and databases of all digits."""
    data, database = folder / "data", folder / "lmdb"
    found = []
    for number in damaged(data, count):
        try:
            script.create_database(database, data, "t10k")
            with lmdb.open(str(database)) as base:
                digits = base.stat()["entries"]
            if digits != FEW:
                found.append(f"{number}: {digits} digits")
        except UserError as error:
            if len(str(error)) > 1000 or len(str(error).splitlines()) > 1:
                found.append(f"{number}: a message of {len(str(error))} characters")
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
