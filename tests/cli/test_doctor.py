"""``doctor`` on installations that work and that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure
from helpers.places import PROJECT

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import RULES


def test_doctor_finds_that_training_can_run(cli: Any) -> None:
    process = cli("doctor")
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert lines[-1] == "training can run"
    assert all(line.startswith("ok ") for line in lines[:-1])
    found = {line[5:27].strip(): line[27:] for line in lines[:-1]}
    assert found["pycaffe"].startswith("1.0.0, /")
    assert found["Python layer"] == "yes"
    assert found["kernels"] == "fused and native (the native solver's bits), numpy"
    assert found["fused passes"] == f"same bits as native: {', '.join(RULES)}"
    assert found["caffe binary"] == str(Path(sys.executable).parent / "caffe")
    assert found["numpy inside caffe"] == found["numpy"]
    assert found["protobuf inside caffe"] == found["protobuf"]


def test_doctor_leaves_nothing_behind(cli: Any, workdir: Path) -> None:
    temporary = workdir / "temporary"
    temporary.mkdir()
    assert cli("doctor", TMPDIR=str(temporary)).returncode == 0
    assert list(workdir.rglob("*")) == [temporary]


@pytest.fixture
def other_venv(workdir: Path) -> Path:
    """An environment with everything that this one has but the ``caffe`` program."""
    venv = workdir / "venv"
    packages = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    python = venv / "bin" / "python3"
    python.symlink_to(os.path.realpath(sys.executable))
    (venv / "pyvenv.cfg").write_bytes(Path(sys.prefix, "pyvenv.cfg").read_bytes())
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "all.pth").write_text("\n".join([str(PROJECT), *here, ""]))
    return venv


def in_venv(venv: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(venv / "bin" / "python3"), "-m", "caffe_pysgd", *arguments],
        env={**os.environ, "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )


def test_without_the_caffe_program_doctor_says_where_it_looked(other_venv: Path) -> None:
    process = in_venv(other_venv, "doctor")
    assert failure(process) == (
        f"caffe: no 'caffe' program beside {other_venv}/bin/python3 or on PATH: run 'make setup'"
    )
    assert "ok   Python layer" in process.stdout


def test_a_caffe_program_that_cannot_be_started_is_no_traceback(other_venv: Path) -> None:
    program = other_venv / "bin" / "caffe"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    assert failure(in_venv(other_venv, "doctor")) == (
        f"caffe: {program} cannot be started: Exec format error"
    )


def test_a_caffe_program_that_runs_no_python_layer_is_told_with_its_last_words(
    other_venv: Path,
) -> None:
    program = other_venv / "bin" / "caffe"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libcaffe.so' >&2\n")
    program.chmod(0o755)
    assert failure(in_venv(other_venv, "doctor")) == (
        "inside caffe: Caffe ended with: error while loading shared libraries: libcaffe.so"
    )


@pytest.mark.parametrize("broken", ["numpy", "h5py", "llvmlite"])
def test_a_package_that_fails_inside_caffe_only_is_found_there(
    cli: Any, workdir: Path, broken: str
) -> None:
    """Inside the program: what ``sys.executable`` is there tells the two apart."""
    import importlib

    real = importlib.import_module(broken).__file__
    package = workdir / "path" / broken
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, sys\n"
        "if 'python' not in os.path.basename(os.readlink('/proc/self/exe')):\n"
        "    raise ImportError('binds to the wrong library')\n"
        f"__file__ = {real!r}\n"
        f"__path__ = [{os.path.dirname(real)!r}]\n"
        "exec(compile(open(__file__).read(), __file__, 'exec'))\n"
    )
    process = cli("doctor", PYTHONPATH=str(workdir / "path"))
    assert "Traceback" not in process.stdout + process.stderr
    if broken != "numpy":  # without NumPy not even the probe is imported
        assert f"{broken} inside caffe" in process.stdout
        assert "binds to the wrong library" in process.stdout
    usable = broken == "llvmlite"  # then there are other kernels
    assert process.returncode == (0 if usable else 2)
    assert ("training can run" in process.stdout) == usable


def test_passes_that_cannot_be_compiled_are_not_called_fused(cli: Any, workdir: Path) -> None:
    package = workdir / "path" / "llvmlite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "binding.py").write_text("raise OSError('libLLVM.so: no such file')")
    process = cli("doctor", PYTHONPATH=str(workdir / "path"))
    assert (process.returncode, process.stderr) == (0, "")
    assert "ok   kernels               native (the native solver's bits), numpy" in process.stdout
    assert "llvmlite does not work here: OSError: libLLVM.so: no such file" in process.stdout


def test_a_caffe_without_the_python_layer_is_told_what_it_lacks() -> None:
    types = list(pycaffe.compiled().layer_type_list())
    pycaffe.require_python_layer(types)
    types.remove("Python")
    with pytest.raises(UserError, match="built without the Python layer; build it with WITH_PYTH"):
        pycaffe.require_python_layer(types)
