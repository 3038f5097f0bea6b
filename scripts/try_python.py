#!/usr/bin/env python3
"""Tries the part of this project that needs no Caffe on other Pythons, with the newest packages.

    python3 scripts/try_python.py python3.13 python3.9

Each Python gets a virtual environment below `.pythons`, with this project and the newest versions
of all that it needs, as pip finds them, and runs `tests/update` there. Prints what was seen; 0 only
if all of it passes.
"""

from __future__ import annotations

import argparse
import re
import subprocess

import bootstrap
from get_caffe import PROJECT
from steps import Failure, clean_environment, run, run_as_program

PLACES = PROJECT / ".pythons"
SHOWN = re.compile(r"^(numpy|llvmlite|pydantic|protobuf)==(\S+)$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs="+", help="a path, or a name on PATH")
    seen = [try_out(python) for python in parser.parse_args().python]
    print("\n".join(["", "what was seen", *seen]))


def try_out(python: str) -> str:
    """Runs the tests on a Python; returns a line about it."""
    version = bootstrap.version_of(python)
    venv = PLACES / version
    bootstrap.new_venv(python, venv)
    pip = [str(venv / "bin/python"), "-m", "pip"]
    tools = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "h5py"]
    project = ["-e", f"{PROJECT}[fused]", *tools]
    run([*pip, "install", "-q", *project], f"cannot install this project on {version}")
    frozen = subprocess.check_output([*pip, "freeze"], text=True, env=clean_environment())
    packages = ", ".join(" ".join(found) for found in SHOWN.findall(frozen))
    tests = [str(venv / "bin/python"), "-m", "pytest", "-q", "-n", "2", "tests/update"]
    done = subprocess.run(
        tests, cwd=PROJECT, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise Failure(f"tests/update failed on Python {version} with {packages}")
    return f"Python {version}, {packages}: {done.stdout.strip().splitlines()[-1]}"


if __name__ == "__main__":
    run_as_program(main)
