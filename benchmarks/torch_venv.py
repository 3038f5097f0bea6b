"""The Python that PyTorch is in: one of its own, because PyTorch wants a newer NumPy than Caffe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

PROJECT = Path(__file__).parent.parent
VENV = PROJECT / ".venv-torch"
REQUIREMENTS = ("torch==2.13.0", "numpy")  # for Python 3.11 a build for CPUs


def torch_python(named: str) -> str:
    """Return the Python to run PyTorch with: a named one, or `.venv-torch`'s, made if need be.

    Raises:
        SystemExit: it cannot be made.
    """
    if named:
        return named
    python = VENV / "bin" / "python"
    if not _has_torch(python):
        _make()
    return str(python)


def _has_torch(python: Path) -> bool:
    return python.exists() and subprocess.run([python, "-c", "import torch"]).returncode == 0


def _make() -> None:
    """Make the venv on the first Python of PATH that is not the project's."""
    own = Path(sys.executable).parent
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    elsewhere = os.pathsep.join(place for place in places if Path(place) != own)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = elsewhere
    print(f"making {VENV.name} with {', '.join(REQUIREMENTS)}", file=sys.stderr, flush=True)
    for command in (
        ["python3", "-m", "venv", "--clear", str(VENV)],
        [str(VENV / "bin" / "pip"), "install", "--quiet", *REQUIREMENTS],
    ):
        process = subprocess.run(["env", *command], env=environment, capture_output=True, text=True)
        if process.returncode:
            sys.exit(f"cannot make {VENV}: {' '.join(command)}:\n{process.stderr}")


class TorchPeer:
    """A long-lived process of PyTorch, which takes a step when it is asked to.

    Args:
        python: the Python that has PyTorch.
    """

    def __init__(self, python: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("torch_peer.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.about = self._answer()

    def build(self, **bench: Any) -> list[str]:
        """Make tensors and optimisers, in place of those that there are; return which there are."""
        optimizers: list[str] = self._ask({"build": bench})["optimizers"]
        return optimizers

    def step(self, which: str) -> float:
        """Return the seconds of one step."""
        return float(self._ask({"step": which})["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: Dict[str, Any]) -> Dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit("PyTorch's process ended; what it said stands above")
        answer: Dict[str, Any] = json.loads(line)
        return answer
