"""The facts around a run: versions, the build of Caffe, the machine, the commit."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from caffe_pysgd.stock.this_caffe import blas, this_caffe
from caffe_pysgd.version import __version__

_PACKAGES = ("numpy", "protobuf", "llvmlite", "h5py", "mpi4py")


def surroundings() -> Dict[str, Any]:
    """Return what this process is and runs on."""
    caffe = this_caffe()
    return {
        "versions": {
            "caffe_pysgd": __version__,
            "python": platform.python_version(),
            **{name: version for name in _PACKAGES if (version := _version(name))},
            "numpy": str(np.__version__),
        },
        "caffe": {"version": caffe.version, "files": caffe.files},
        # By these the bits of a gradient may differ from one machine to another.
        "blas": blas(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "threads": {
            name: os.environ[name]
            for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
            if name in os.environ
        },
    }


def command() -> Dict[str, Any]:
    """Return how this process was started, and of which commit its working directory is."""
    return {
        "command": list(sys.orig_argv) if hasattr(sys, "orig_argv") else list(sys.argv),
        "working_directory": os.getcwd(),
        "git": _git(),
    }


def going_on(command: Sequence[str], state: Path) -> str:
    """Return the command line that goes on from a solver state, as one types it.

    Args:
        command: how the run was started, as :func:`command` has it.
        state: what it goes on from.
    """
    start = next((i for i, word in enumerate(command) if word in ("train", "solve")), None)
    words = list(command[start:]) if start is not None else []
    behind = words.index("--") if "--" in words else len(words)
    kept: List[str] = []
    takes_next = False
    for word in words[:behind]:
        name, equals, _ = word.partition("=")
        if takes_next or name in ("--snapshot", "--weights"):
            takes_next = not takes_next and not equals
        elif name != "--overwrite":
            kept.append(word)
    return shlex.join(["caffe-pysgd", *kept, "--snapshot", str(state), *words[behind:]])


def read(path: Path) -> Dict[str, Any]:
    """Return what was written down of a run before it started; nothing if it is there no more."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _version(package: str) -> Optional[str]:
    """Return a package's version, without the parser of mails that ``metadata.version`` takes."""
    try:
        read = metadata.distribution(package).read_text
    except metadata.PackageNotFoundError:
        return None
    # The last stands for a file that is all there is, as of Debian's packages.
    text = read("METADATA") or read("PKG-INFO") or read("") or ""
    found = re.search(r"^Version: *(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def _git() -> Optional[Dict[str, Any]]:
    """Return the commit of the working directory, and whether files differ from it."""
    try:
        said = _output("git", "status", "--porcelain=2", "--branch", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    lines = said.splitlines()
    head = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    changed = not all(line.startswith("# ") for line in lines)
    return {"commit": head, "changed": changed} if head not in ("", "(initial)") else None


def _output(*arguments: str) -> str:
    done = subprocess.run(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        timeout=10,
        check=True,
    )
    return done.stdout.decode(errors="replace").strip()
