"""scripts/bootstrap.py: which Caffe it takes, and that a second run costs nothing."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.places import PROJECT

USABLE = {
    "executable": "/usr/bin/python3",
    "python": [3, 9],
    "versions": {"numpy": "1.19.5"},
    "layers": ["Convolution", "Python"],
    "place": "",
    "in_venv": False,
    "has_pip": True,
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "scripts"))
    return importlib.import_module("bootstrap")


@pytest.fixture
def finished(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which bootstrap.py has ended well, on a Caffe that was found."""
    for variable in script.CHOICE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    for program in ("python", "caffe"):
        (venv / "bin" / program).touch()
    (tmp_path / "setup.py").write_text("setup()")
    monkeypatch.setattr(script, "PROJECT", tmp_path)
    monkeypatch.setattr(script, "VENV", venv)
    monkeypatch.setattr(script, "STAMP", venv / "bootstrap.json")
    stamp = {
        "project": str(tmp_path),
        "caffe": "/usr/bin/caffe",
        "is_fetched": False,
        "choice": {},
        "extras": ["plot", "test"],
        "inputs": script.input_hashes(),
    }
    script.STAMP.write_text(json.dumps(stamp))
    return tmp_path


def test_nothing_to_do_after_a_finished_run(script: ModuleType, finished: Path) -> None:
    assert script.is_up_to_date({"test"})
    assert script.is_up_to_date({"test", "plot"})


def test_venv_without_a_stamp_is_not_whole(script: ModuleType, finished: Path) -> None:
    script.remove_stamp()

    assert not script.is_whole()


def test_venv_whose_caffe_is_gone_is_not_whole(script: ModuleType, finished: Path) -> None:
    (finished / ".venv" / "bin" / "caffe").unlink()

    assert not script.is_whole()


def test_another_caffe_asked_for_needs_another_venv(
    script: ModuleType, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAFFE_PYTHON", "/opt/caffe/bin/python")

    assert not script.is_whole()


def test_changed_setup_or_more_extras_need_an_installation(
    script: ModuleType, finished: Path
) -> None:
    assert not script.is_up_to_date({"docs"})
    (finished / "setup.py").write_text("setup(name='x')")
    assert not script.is_up_to_date({"test"})
    assert script.is_whole()


def test_usable_caffe_has_no_reason_against_it(script: ModuleType) -> None:
    assert script.why_unusable(USABLE) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"error": "ImportError: no libcaffe"}, "ImportError: no libcaffe"),
        ({"python": [3, 7]}, "its Python is 3.7, older than 3.8"),
        ({"layers": ["Convolution"]}, "without the Python layer"),
        ({"in_venv": True}, "it is in a virtual environment"),
        ({"has_pip": False}, "install python3-venv"),
    ],
)
def test_unusable_caffe_is_told_why(
    script: ModuleType, change: dict[str, object], reason: str
) -> None:
    assert reason in script.why_unusable({**USABLE, **change})


def test_probe_finds_the_caffe_of_this_environment(script: ModuleType) -> None:
    facts = script.probe(sys.executable)

    assert "Python" in facts["layers"]
    assert facts["in_venv"]


def test_probe_reports_a_caffe_on_pythonpath_that_does_not_import(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe" / "__init__.py").write_text("raise ImportError('libcaffe.so is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")

    assert script.probe(python) == {"error": "ImportError: libcaffe.so is gone"}


def test_probe_of_a_python_without_caffe(script: ModuleType) -> None:
    without_packages = [sys.executable, "-I", "-S", "-c", script.PROBE]
    run = subprocess.run(without_packages, capture_output=True, text=True)

    assert (run.returncode, run.stderr) == (1, "no caffe\n")


def test_named_python_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "scripts", tmp_path / "scripts")
    run = subprocess.run(
        [sys.executable, str(tmp_path / "scripts" / "bootstrap.py")],
        env=dict(os.environ, CAFFE_PYTHON="/no/such/python"),
        capture_output=True,
        text=True,
    )

    assert run.returncode == 2
    assert run.stderr.splitlines()[1:] == [
        "bootstrap.py: CAFFE_PYTHON=/no/such/python is no program: name a Python that imports caffe"
    ]
