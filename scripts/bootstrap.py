#!/usr/bin/env python3
"""Makes `.venv`: a virtual environment with Caffe, this project and what its tests need.

A Caffe that this machine has already is used; otherwise get_caffe.py fetches one. When everything
is there this returns at once, so `make` can call it before every target.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any, Dict, NamedTuple

import get_caffe
from get_caffe import DEFAULT_PREFIX, PROJECT, TOOLS
from steps import (
    Failure,
    Steps,
    clean_environment,
    last_line,
    lines_of,
    locked,
    run,
    run_as_program,
)

Facts = Dict[str, Any]  # what comes out of JSON

VENV = PROJECT / ".venv"
STAMP = VENV / "bootstrap.json"
CONSTRAINTS_FETCHED = PROJECT / "scripts" / "constraints.txt"
CONSTRAINTS_FOUND = VENV / "constraints.txt"
INSTALL_INPUTS = ("setup.py", "pyproject.toml", "scripts/constraints.txt")
CHOICE_VARIABLES = ("CAFFE_PYTHON", "CAFFE_BIN")

# Packages that share a library with Caffe or an array layout with pycaffe: the venv keeps the
# versions which work there.
TIED_TO_CAFFE = ("numpy", "protobuf", "h5py")

# Run in a Python that may have Caffe. The arguments are the caller's PYTHONPATH, which is where
# people who built Caffe themselves put it; of all that is on it, only Caffe is taken over.
PROBE = f"""
import json, os, sys
places = [place for place in sys.argv[1:] if os.path.isdir(os.path.join(place, "caffe"))]
sys.path.extend(places)
import importlib.util
if importlib.util.find_spec("caffe") is None:
    sys.exit("no caffe")
try:
    import caffe
    from importlib.metadata import PackageNotFoundError, version
    versions = {{}}
    for name in {TIED_TO_CAFFE!r}:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            pass
    place = os.path.dirname(os.path.dirname(os.path.abspath(caffe.__file__)))
    facts = dict(
        executable=sys.executable,
        python=list(sys.version_info[:2]),
        versions=versions,
        layers=list(caffe.layer_type_list()),
        place=place if place in places else "",
        in_venv=sys.prefix != sys.base_prefix,
        has_pip=bool(importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")),
    )
except Exception as error:
    facts = dict(error=f"{{type(error).__name__}}: {{error}}".splitlines()[0])
print("\\n" + json.dumps(facts))
"""


class Caffe(NamedTuple):
    """A Caffe to build the environment on."""

    python: str
    binary: Path
    is_fetched: bool
    versions: dict[str, str]  # of the packages tied to it, for a Caffe that was found
    place: str  # the directory that makes it importable, where Python does not know it


def main() -> None:
    parser = argparse.ArgumentParser(description="Make .venv with Caffe and this project.")
    parser.add_argument("--extras", default="test", help="comma-separated extras of pyproject.toml")
    extras = {name.strip() for name in parser.parse_args().extras.split(",") if name.strip()}
    if is_up_to_date(extras):
        return
    with locked(VENV.with_name(".venv.lock")):
        if not is_up_to_date(extras):
            set_up(extras)


def set_up(extras: set[str]) -> None:
    """Makes the venv where there is no whole one, then installs the project into it.

    The stamp is away while anything is being changed, and a venv without one is made anew, so a
    half-made venv is never taken for a whole one.
    """
    start = time.monotonic()
    steps = Steps(3)
    steps.begin("a Caffe to work with")
    if is_whole():
        stamp = read_stamp()
        steps.say(f"      {stamp['caffe']}, as before")
        steps.begin("virtual environment: .venv, as before")
    else:
        caffe = find_caffe(steps) or fetched_caffe()
        steps.say(f"      {caffe.binary}")
        steps.begin("virtual environment: .venv")
        make_venv(caffe)
        stamp = {
            "project": str(PROJECT),
            "caffe": str(caffe.binary),
            "is_fetched": caffe.is_fetched,
            "choice": choice(),
            "extras": [],
        }

    wanted = sorted(extras | set(stamp["extras"]))
    steps.begin(f"install this project with its extras {', '.join(wanted) or '(none)'}")
    hashes = input_hashes()
    remove_stamp()
    constraints = CONSTRAINTS_FETCHED if stamp["is_fetched"] else CONSTRAINTS_FOUND
    install_project(wanted, constraints, steps)
    STAMP.write_text(json.dumps(dict(stamp, extras=wanted, inputs=hashes), indent=1))
    steps.say(f"set up in {time.monotonic() - start:.0f} s")


def is_up_to_date(extras: set[str]) -> bool:
    """Whether there is nothing to do."""
    if not is_whole():
        return False
    stamp = read_stamp()
    return extras <= set(stamp["extras"]) and stamp["inputs"] == input_hashes()


def is_whole() -> bool:
    """Whether .venv was finished, here, on a Caffe that is still there and still the one wanted."""
    stamp = read_stamp()
    return (
        stamp.get("project") == str(PROJECT)
        and all(stamp["choice"].get(name) == value for name, value in choice().items())
        and (VENV / "bin" / "python").exists()
        and (VENV / "bin" / "caffe").exists()
        and (not stamp["is_fetched"] or get_caffe.is_whole(DEFAULT_PREFIX))
    )


def choice() -> dict[str, str]:
    """The Caffe that the caller names in the environment, if any."""
    return {name: os.environ[name] for name in CHOICE_VARIABLES if os.environ.get(name)}


def read_stamp() -> Facts:
    try:
        stamp: Facts = json.loads(STAMP.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return stamp


def remove_stamp() -> None:
    if STAMP.exists():
        STAMP.unlink()


def input_hashes() -> dict[str, str]:
    """What the installation depends on, by content."""
    files = (PROJECT / name for name in INSTALL_INPUTS)
    return {
        str(file.relative_to(PROJECT)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.exists()
    }


def find_caffe(steps: Steps) -> Caffe | None:
    """The Caffe that this machine has, or None, saying why one that is there is passed over."""
    path = path_outside_venv()
    named = os.environ.get("CAFFE_PYTHON")
    python = shutil.which(named or "python3", path=path)
    if python is None:
        if named:
            raise Failure(f"CAFFE_PYTHON={named} is no program: name a Python that imports caffe")
        return None
    facts = probe(python)
    if facts is None:
        if named:
            raise Failure(f"CAFFE_PYTHON={named} has no caffe: name another Python, or unset it")
        return None
    binary = shutil.which(os.environ.get("CAFFE_BIN") or "caffe", path=path)
    reason = why_unusable(facts)
    if reason is None and binary is not None:
        return Caffe(facts["executable"], Path(binary), False, facts["versions"], facts["place"])
    reason = reason or "there is no caffe program on PATH (name it in CAFFE_BIN)"
    if named:
        raise Failure(f"the Caffe of CAFFE_PYTHON={named} cannot be used: {reason}")
    steps.say(f"      the Caffe of {python} is passed over: {reason}")
    return None


def path_outside_venv() -> str:
    """The caller's PATH without our own .venv, which may be activated."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(place for place in places if Path(place) != VENV / "bin")


def probe(python: str) -> Facts | None:
    """What a Python says about its Caffe; None where there is none to import."""
    search_path = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    outcome = subprocess.run(
        [python, "-c", PROBE, *map(os.path.abspath, search_path)],
        cwd=os.sep,  # python -c would import what lies in the working directory
        env=clean_environment(GLOG_minloglevel="2"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if outcome.returncode < 0:
        return {"error": f"import caffe crashes (signal {-outcome.returncode})"}
    if outcome.returncode != 0:
        return None
    facts: Facts = json.loads(last_line(outcome.stdout))
    return facts


def why_unusable(facts: Facts) -> str | None:
    """Why this project cannot work with a Caffe that is there; None if it can."""
    if "error" in facts:
        return str(facts["error"])
    if facts["python"] < [3, 8]:
        return "its Python is {}.{}, older than 3.8".format(*facts["python"])
    if "Python" not in facts["layers"]:
        return "it was built without the Python layer (WITH_PYTHON_LAYER)"
    if facts["in_venv"]:
        return "it is in a virtual environment (name the Python below that in CAFFE_PYTHON)"
    if not facts["has_pip"]:
        return "its Python cannot make virtual environments (install python3-venv)"
    return None


def fetched_caffe() -> Caffe:
    """The Caffe in the project's own prefix, fetched where it is not there."""
    get_caffe.install(DEFAULT_PREFIX, indent="      ")
    return Caffe(
        python=str(DEFAULT_PREFIX / get_caffe.PYTHON),
        binary=DEFAULT_PREFIX / get_caffe.CAFFE,
        is_fetched=True,
        versions={},
        place="",
    )


def make_venv(caffe: Caffe) -> None:
    """Makes .venv anew on Caffe's Python, with pip and with Caffe's programs in its bin."""
    if VENV.exists():
        remove_stamp()
        shutil.rmtree(VENV)
    new_venv(caffe.python, VENV, "--system-site-packages")
    if not caffe.is_fetched:
        pins = "".join(f"{name}=={version}\n" for name, version in caffe.versions.items())
        if int(caffe.versions.get("numpy", "2").split(".")[0]) < 2:
            pins += "pyarrow<22\n"  # newer ones refuse NumPy 1
        CONSTRAINTS_FOUND.write_text(pins)
    if caffe.place:
        (site_packages() / "caffe.pth").write_text(f"{caffe.place}\n")
    link_programs(caffe.binary)


def new_venv(python: str, place: Path, *options: str) -> None:
    """Makes a virtual environment with pip in it."""
    command = [python, "-m", "venv", *options, str(place)]
    wheels = list(Path(python).parents[1].glob("share/python-wheels/pip-*.whl"))
    if Path(python).parents[1] == Path("/usr") or not wheels:
        run(command, f"cannot make {place} with {python} (is its python3-venv installed?)")
        return
    # Debian's Python, unpacked elsewhere, looks for its wheels in /usr/share all the same; but pip
    # can be run from the wheel.
    run([*command, "--without-pip"], f"cannot make {place}")
    pip = ["install", "--quiet", "--ignore-installed", "pip", "setuptools", "wheel"]
    run(
        [str(place / "bin" / "python"), "-m", "pip", *pip],
        f"cannot install pip into {place} (does pip reach its index?)",
        clean_environment(PYTHONPATH=str(wheels[0])),
    )


def version_of(python: str) -> str:
    """Asks a Python for its version, such as 3.9.2."""
    asked = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.check_output(asked, text=True).strip()


def venv_python() -> str:
    return str(VENV / "bin" / "python")


def site_packages() -> Path:
    return next(VENV.glob("lib/python3.*/site-packages"))


def link_programs(binary: Path) -> None:
    """Links caffe and its tools into the venv's bin.

    caffe's embedded Python looks `python3` up on PATH: with this directory first on it, that is
    the venv's, and a Python layer can import what pip has installed.
    """
    (VENV / "bin" / "caffe").symlink_to(binary)
    for tool in TOOLS:
        beside = binary.resolve().with_name(tool)
        found = beside if beside.exists() else shutil.which(tool, path=path_outside_venv())
        if found:
            (VENV / "bin" / tool).symlink_to(found)


def install_project(extras: list[str], constraints: Path, steps: Steps) -> None:
    """Installs the project in place; what pip is doing shows on a terminal as it goes."""
    target = f"{PROJECT}[{','.join(extras)}]" if extras else str(PROJECT)
    command = [venv_python(), "-m", "pip", "install", "-c", str(constraints)]
    # A path rather than a finder, which each start of Python would import first.
    command += ["--config-settings", "editable_mode=compat", "-e", target]
    process = subprocess.Popen(
        command,
        env=clean_environment(),
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    output: deque[str] = deque(maxlen=100)
    for line in lines_of(process):
        output.append(line)
        steps.status(line.strip())
    steps.clear()
    if process.returncode != 0:
        steps.say("".join(output).rstrip())
        raise Failure("pip could not install this project; what it printed stands above")


if __name__ == "__main__":
    run_as_program(main)
