"""The wheel: what is in it, and that it works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, List

import pytest
from helpers.nets import write_solver
from helpers.places import PROJECT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: Any) -> Path:
    """A wheel built from a copy of what git would put into a fresh clone."""
    folder = tmp_path_factory.mktemp("packaging")
    copy = folder / "checkout"
    for name in ("caffe_pysgd", "prototxt_templates", "tests", "examples"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*_lmdb", ".*")
        shutil.copytree(PROJECT / name, copy / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    run([sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder)], cwd=copy)  # fmt: skip
    (built,) = folder.glob("*.whl")
    shutil.rmtree(copy)
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The wheel, installed into a folder of its own."""
    target = wheel.parent / "installed"
    run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target),
         str(wheel)])  # fmt: skip
    return target


def run(command: List[str], **options: Any) -> subprocess.CompletedProcess:
    process = subprocess.run(command, capture_output=True, text=True, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def test_the_wheel_holds_the_package_the_templates_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    templates = sorted(name for name in names if name.endswith(".prototxt"))
    assert templates == [
        f"caffe_pysgd/prototxt_templates/{name}.prototxt" for name in ("hook", "parameters", "seal")
    ]
    assert "caffe_pysgd/py.typed" in names
    report = PROJECT / "caffe_pysgd" / "report"
    for folder in ("assets", "vendor"):
        files = {path for path in (report / folder).rglob("*") if path.is_file()}
        assert {str(path.relative_to(PROJECT)) for path in files} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    modules = {str(path.relative_to(PROJECT)) for path in (PROJECT / "caffe_pysgd").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0].split("-")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"caffe_pysgd"}


def test_installed_without_the_checkout_it_injects_and_trains(
    installed: Path, workdir: Path
) -> None:
    write_solver(workdir, max_iter=2)
    environment = {**os.environ, "PYTHONPATH": str(installed), "GLOG_minloglevel": "0"}
    where = run([sys.executable, "-c", "import caffe_pysgd; print(caffe_pysgd.__file__)"],
                env=environment).stdout  # fmt: skip
    assert where == f"{installed}/caffe_pysgd/__init__.py\n"
    program = [sys.executable, str(installed / "bin" / "caffe-pysgd")]
    run([*program, "inject", "solver.prototxt", "--run-dir=d"], env=environment)
    assert "pysgd_seal" in Path("d/net.prototxt").read_text()
    trained = run([*program, "train", "solver.prototxt", "--", "-logtostderr"], env=environment)
    assert "Python owns the update" in trained.stderr
