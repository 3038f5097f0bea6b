"""A snapshot of any kind is read, or refused in one short line, and takes little to read.

HDF5's library may end the process over a damaged file, so each batch is read in a child.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
from helpers.nets import NETS, write_solver
from helpers.places import PROJECT

import caffe_pysgd

PROGRAM = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.mutations import mutations
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock.snapshots import read_model, read_solver_state

resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
TOKENS = [
    b"\\xff" * 8, b"\\0" * 8, b"\\x7f\\xff\\xff\\xff", b"\\x80" * 10, b"\\x08\\x01", b"\\x12\\xff",
    b"{{", b"[]", b'{{"rule": 3}}', b"99999999", b"\\xff\\xfe", b"TREE", b"SNOD", b"OHDR", b"HEAP",
]
corpus = [Path(name).read_bytes() for name in sys.argv[3:]]
read = {{"state": read_solver_state, "model": read_model}}[sys.argv[1]]
path, found = Path("damaged"), []
for number, content in enumerate(mutations(corpus, TOKENS, int(sys.argv[2]))):
    path.write_bytes(content)
    Path("last").write_text(str(number))
    try:
        read(path)
    except UserError as error:
        if len(str(error)) > 600:
            found.append(f"{{number}}: a message of {{len(str(error))}} characters")
    except BaseException as error:
        found.append(f"{{number}}: {{type(error).__name__}}: {{str(error)[:100]}}")
print(json.dumps(found))
"""


def write_corpus(folder: Path, hdf5: bool) -> List[Path]:
    fields: Any = {"snapshot_format": "HDF5"} if hdf5 else {}
    path = write_solver(folder, NETS["normalized"], type="Adam", **fields)
    solver = caffe_pysgd.get_solver(path)
    solver.step(1)
    solver.snapshot()
    return sorted(path for path in folder.glob("*_iter_1*"))


def unexpected(folder: Path, kind: str, hdf5: bool, count: int) -> List[str]:
    ending = {"state": "solverstate", "model": "caffemodel"}[kind]
    files = [path for path in write_corpus(folder, hdf5) if ending in path.name]
    assert files
    program = PROGRAM.format(tests=str(PROJECT / "tests"))
    child = subprocess.run(
        [sys.executable, "-c", program, kind, str(count), *map(str, files)],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    if child.returncode:
        last = (folder / "last").read_text()
        return [f"{last}: ended with {child.returncode}: {child.stderr[-300:]}"]
    found: List[str] = json.loads(child.stdout.splitlines()[-1])
    return found


KINDS = [("state", False), ("state", True), ("model", False), ("model", True)]


@pytest.mark.parametrize("kind, hdf5", KINDS)
def test_damaged_files_are_refused(workdir: Path, kind: str, hdf5: bool) -> None:
    assert unexpected(workdir, kind, hdf5, 400) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind, hdf5", KINDS)
def test_ten_thousand_damaged_files_are_refused(workdir: Path, kind: str, hdf5: bool) -> None:
    assert unexpected(workdir, kind, hdf5, 10_000) == []
