"""What a run writes by itself: into its own folder, and over nothing but what it wrote before."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict

from caffe_pysgd.errors import SettingError, UserError

SOLVER, NET = "solver.prototxt", "net.prototxt"
MANIFEST, RESOLVED, REPORT = "manifest.json", "resolved.yaml", "report.html"

ORIGIN = "# Written by caffe-pysgd"  # how a prototxt and a YAML of ours begin

_WRITTEN_HERE: Dict[str, Callable[[bytes], bool]] = {
    ".prototxt": lambda content: content.startswith(ORIGIN.encode()),
    ".yaml": lambda content: content.startswith(ORIGIN.encode()),
    ".json": lambda content: b'"train_state"' in content and b'"hyperparameters"' in content,
    ".html": lambda content: b'name="generator" content="caffe-pysgd ' in content[:4096],
}


def refuse_foreign(path: Path) -> Path:
    """Return where a file is going to be written; one that is there must be of this program.

    Raises:
        UserError: it is not, such as the very file that is being injected.
    """
    if path.is_file() and not _WRITTEN_HERE[path.suffix](path.read_bytes()):
        raise UserError(
            f"{path}: would be replaced, and caffe-pysgd did not write it; move it away, or give "
            "another folder (run_dir, or --run-dir D) or output"
        )
    return path


def own_folder(directory: Path) -> Path:
    """Return a folder to write a run into; see :func:`refuse_foreign`.

    Raises:
        UserError: a file there that would be replaced is not of this program.
    """
    for name in (SOLVER, NET, MANIFEST, RESOLVED):
        refuse_foreign(directory / name)
    return directory


def inside(directory: Path, field: str, name: str, where: Path) -> Path:
    """Return a file in a run's folder that a setting names.

    Raises:
        SettingError: it would be elsewhere, or in the place of a file of the run's.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise SettingError(field, name, "a path inside the run directory", where=where)
    if str(path) in (SOLVER, NET, MANIFEST, REPORT, RESOLVED, "."):
        raise SettingError(field, name, "another name, which the run does not use", where=where)
    return directory / path
