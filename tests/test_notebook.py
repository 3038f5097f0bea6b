"""The tutorial's notebook runs from its first cell to its last, in a kernel of this Python."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, List

import nbformat
import pytest
from helpers.places import PROJECT
from nbclient import NotebookClient

NOTEBOOK = PROJECT / "examples" / "tutorial.ipynb"


def kinds(notebook: Any) -> List[List[List[str]]]:
    """What each cell of code shows: texts, tables, pictures."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [sorted(one.get("data", {"text/plain": ""})) for one in cell.outputs if not is_bar(one)]
        for cell in cells
    ]


def is_bar(output: Any) -> bool:
    """Whether it is the progress bar, which a fast machine does without."""
    return "<progress" in output.get("data", {}).get("text/html", "")


def test_the_tutorial_runs(mnist: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(mnist / "examples", workdir / "examples")
    shutil.copy(NOTEBOOK, workdir / "examples")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    written = nbformat.read(NOTEBOOK, as_version=4)
    here = {"metadata": {"path": str(workdir / "examples")}}  # where Jupyter runs it
    ran = NotebookClient(nbformat.from_dict(written), timeout=300, resources=here).execute()
    texts = [output.get("text", "") for cell in ran.cells for output in cell.get("outputs", [])]
    assert "subtracted to the bit: True\n" in texts
    assert kinds(ran) == kinds(nbformat.read(NOTEBOOK, as_version=4))
    assert (workdir / "runs" / "tutorial" / "report.html").exists()
