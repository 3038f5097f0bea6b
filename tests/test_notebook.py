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
    return [[sorted(one.get("data", {"text/plain": ""})) for one in cell.outputs] for cell in cells]


def test_the_tutorial_runs(mnist: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(mnist / "examples", workdir / "examples")
    shutil.copy(NOTEBOOK, workdir / "examples")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    written = nbformat.read(NOTEBOOK, as_version=4)
    written.cells[1].source += (  # else a fast machine is done before there is a bar
        "\nimport caffe_pysgd.hosts.training_bar as bar\nbar._SECONDS_BETWEEN_SHOWS = 0"
    )
    here = {"metadata": {"path": str(workdir / "examples")}}  # where Jupyter runs it
    ran = NotebookClient(nbformat.from_dict(written), timeout=300, resources=here).execute()
    (bar,) = ran.cells[5].outputs[:-1]
    assert '<progress value="60" max="60">' in bar.data["text/html"]
    texts = [output.get("text", "") for cell in ran.cells for output in cell.get("outputs", [])]
    assert "subtracted to the bit: True\n" in texts
    assert kinds(ran) == kinds(nbformat.read(NOTEBOOK, as_version=4))
    assert (workdir / "runs" / "tutorial" / "report.html").exists()
