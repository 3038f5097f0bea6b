"""``doctor`` on installations that work and that do not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.failures import failure
from helpers.programs import in_venv

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
    assert found["host in-net"] == "caffe-pysgd train"
    assert found["host hook"] and found["host solver"]
    assert found["caffe binary"] == str(Path(sys.executable).parent / "caffe")
    assert found["numpy inside caffe"] == found["numpy"]
    assert found["protobuf inside caffe"] == found["protobuf"]


def test_doctor_leaves_nothing_behind(cli: Any, workdir: Path) -> None:
    temporary = workdir / "temporary"
    temporary.mkdir()
    assert cli("doctor", TMPDIR=str(temporary)).returncode == 0
    assert list(workdir.rglob("*")) == [temporary]


def test_without_the_caffe_program_doctor_says_which_hosts_there_are(other_venv: Path) -> None:
    process = in_venv(other_venv, "doctor")
    assert (process.returncode, process.stderr) == (0, "")
    *_, in_net, hook, solver, last = process.stdout.splitlines()
    assert in_net.startswith(
        f"no   host in-net           no 'caffe' program beside {other_venv}/bin/python3 or on PATH"
    )
    assert hook.startswith("ok   host hook") and solver.startswith("ok   host solver")
    assert last == "training can run"


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
    needed = broken == "numpy"  # h5py is for snapshots in HDF5; there are other kernels
    assert process.returncode == (2 if needed else 0)
    assert "Traceback" not in process.stdout + process.stderr
    assert ("training can run" in process.stdout) is not needed
    if broken != "numpy":  # without NumPy not even the probe is imported
        assert f"{broken} inside caffe" in process.stdout
        assert "binds to the wrong library" in process.stdout


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
    with pytest.raises(UserError, match="build it with WITH_PYTHON_LAYER=1"):
        pycaffe.require_python_layer(types)


def test_the_blas_is_the_one_that_caffe_calls() -> None:
    """Its file is a library that Caffe's module was linked to, whatever else NumPy brings."""
    import ctypes

    from caffe_pysgd.stock.blas import blas_of_caffe

    file, *_ = blas_of_caffe()
    address = ctypes.cast(ctypes.CDLL(file).cblas_saxpy, ctypes.c_void_p).value
    bound = ctypes.cast(ctypes.CDLL(pycaffe.library_path()).cblas_saxpy, ctypes.c_void_p).value
    assert address == bound
