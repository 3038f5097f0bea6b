#!/usr/bin/env python3
"""Tries this project on a Caffe beside the default one, in a folder of its own below `.caffes`.

    .venv/bin/python scripts/try_caffe.py kendryte-caffe
    CAFFE_PYTHON=python3.8 .venv/bin/python scripts/try_caffe.py kendryte-caffe

Sets the Caffe up from the package registries, then runs doctor, verify in every host that it has,
the relay of hosts and the conformance tests. Prints what was seen; 0 only if all of it holds.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Callable, Dict

import bootstrap
import build_caffe
import get_caffe
from steps import Failure, clean_environment, run, run_as_program

PROJECT = get_caffe.PROJECT
PLACES = PROJECT / ".caffes"
SOLVER = "examples/mnist/lenet_solver.prototxt"
TESTS = ("tests/native/test_conformance.py", "tests/hosts/test_relay.py")
NEEDED_BY_TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "lmdb", "h5py")
HOST = re.compile(r"^ok +host ([\w-]+)", re.MULTILINE)


def kendryte(place: Path) -> Path:
    """A wheel: libcaffe linked statically, no `caffe` program, NumPy 1 and protobuf 3."""
    python = os.environ.get("CAFFE_PYTHON")
    if python is None:
        get_caffe.install(get_caffe.DEFAULT_PREFIX)
        python = str(get_caffe.DEFAULT_PREFIX / get_caffe.PYTHON)
    else:
        place /= bootstrap.version_of(python)
    return from_pypi(place, python, "kendryte-caffe", "numpy<2", "protobuf<4")


def from_pypi(place: Path, python: str, *packages: str) -> Path:
    """Makes a venv with packages of PyPI; returns it."""
    venv = place / "venv"
    if not (place / "whole").exists():
        bootstrap.new_venv(python, venv)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q"]
        run([*pip, *packages], f"cannot install {packages[0]}")
        (place / "whole").touch()
    return venv


CAFFES: Dict[str, Callable[[Path], Path]] = {
    "kendryte-caffe": kendryte,
    "debian-rebuilt": build_caffe.build,
    "no-python-layer": partial(build_caffe.build, python_layer=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CAFFES)
    name = parser.parse_args().name
    place = PLACES / name
    place.mkdir(parents=True, exist_ok=True)
    venv = CAFFES[name](place)
    install_project(venv)
    print("\n".join(["", f"{name}: what was seen", *try_out(venv)]))


def install_project(venv: Path) -> None:
    """Installs the project beside that Caffe, whose own packages stay as they are."""
    python = str(venv / "bin/python")
    frozen = subprocess.check_output([python, "-m", "pip", "freeze"], text=True, env=environment())
    own = re.findall(r"^(?:numpy|protobuf|h5py)==.*\n", frozen, re.MULTILINE)
    pins = venv / "constraints.txt"
    pins.write_text("".join(own))
    extras = f"{PROJECT}[fused]"
    run(
        [python, "-m", "pip", "install", "-q", "-c", str(pins), "-e", extras, *NEEDED_BY_TESTS],
        "cannot install this project",
    )


def try_out(venv: Path) -> list[str]:
    """Runs everything; returns a line about each thing."""
    program, python = str(venv / "bin/caffe-pysgd"), str(venv / "bin/python")
    found = succeed([program, "doctor"])
    seen = [line[5:] for line in found.splitlines() if re.match(r"ok +(Python|numpy|proto)", line)]
    succeed([python, "examples/mnist/create_mnist.py"])
    for host in HOST.findall(found):
        verified = succeed([program, "verify", SOLVER, "--iterations=20", f"--host={host}"])
        seen.append(f"{host + ':':<22}{last_line(verified)}")
    tested = succeed([python, "-m", "pytest", "-q", "-n", "2", "--timeout=1800", *TESTS])
    return [*seen, f"tests:                {last_line(tested)}"]


def succeed(command: list[str]) -> str:
    """Runs a program as a person would, showing what it prints; returns that."""
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait() != 0:
        raise Failure(f"{' '.join(command)}: exit code {process.returncode}")
    return "".join(lines)


def environment() -> dict[str, str]:
    """The caller's environment without this project's own .venv, and its `caffe`, on PATH."""
    return clean_environment(PATH=bootstrap.path_outside_venv())


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


if __name__ == "__main__":
    run_as_program(main)
