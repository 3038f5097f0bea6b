"""The way to the installed Caffe: its compiled module, its messages, its binary.

``import caffe`` takes seconds, because ``caffe/__init__.py`` pulls in scikit-image and SciPy for
its image helpers. Everything here needs the compiled module and the protobuf classes alone, so
the package is imported in two steps: its submodules at once, its ``__init__`` when somebody first
asks the package for a name that is not there yet. A user's own ``import caffe`` in the same
process therefore sees the whole package.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any, Iterable

from caffe_pysgd.errors import UserError

_MISSING = (
    "Caffe is not importable by {python}: run 'make setup' in the project, or install "
    "caffe_pysgd with the Python that has pycaffe (docs/install.md)"
)


class _PackageInTwoSteps(types.ModuleType):
    """The ``caffe`` package before its ``__init__.py`` was run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(name)  # the import system looks for these by itself
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)


def _import(submodule: str) -> Any:
    if "caffe" not in sys.modules:
        spec = importlib.util.find_spec("caffe")
        if spec is None:
            raise UserError(_MISSING.format(python=sys.executable or "this program"))
        package = importlib.util.module_from_spec(spec)
        package.__class__ = _PackageInTwoSteps
        sys.modules["caffe"] = package
    try:
        return importlib.import_module(f"caffe.{submodule}")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("caffe."):
            where = ", ".join(sys.modules["caffe"].__path__)
            raise UserError(
                f"{where}: is not pycaffe, though it is called so: there is no {error.name}; "
                "move it out of Python's way (PyPI's 'caffe' is an empty placeholder: uninstall it)"
            ) from error
        # A NumPy of another ABI and a protobuf too new for caffe_pb2.py end here.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Caffe is installed but cannot be imported: {reason}; take the versions that "
            "scripts/constraints.txt holds together"
        ) from error


def compiled() -> Any:
    """Return pycaffe's compiled module: ``Net``, ``Layer``, the solvers, ``log``.

    Raises:
        UserError: there is no importable Caffe.
    """
    return _import("_caffe")


def package() -> Any:
    """Return the whole package ``caffe``, with what its Python half adds to nets.

    Raises:
        UserError: there is no importable Caffe.
    """
    compiled()
    package = importlib.import_module("caffe")
    package.Net  # noqa: B018 - the first name that is asked for runs caffe/__init__.py
    return package


def messages() -> Any:
    """Return ``caffe_pb2``: ``SolverParameter``, ``NetParameter`` and the others of caffe.proto.

    Raises:
        UserError: there is no importable Caffe.
    """
    return _import("proto.caffe_pb2")


def require_python_layer(layer_types: Iterable[str]) -> None:
    """Check that Caffe knows layers written in Python, among the types that it lists.

    Raises:
        UserError: it was built without them.
    """
    if "Python" not in layer_types:
        raise UserError(
            "this Caffe was built without the Python layer; build it with WITH_PYTHON_LAYER=1, or "
            "run 'make setup' for one that has it"
        )


def require_gpu() -> None:
    """Check that this Caffe was built for GPUs.

    Raises:
        UserError: it was not, and would abort.
    """
    if not hasattr(compiled().Blob, "_gpu_data_ptr"):
        raise UserError(
            "this Caffe was built without GPU support; leave out --gpu and solver_mode: GPU"
        )


def library_path() -> str:
    """Return the file through which Caffe's exported C++ symbols are reached."""
    path: str = compiled().__file__
    return path


def in_caffe_binary() -> bool:
    """Return whether this interpreter is the one embedded in a program such as ``caffe train``."""
    try:
        program = os.readlink("/proc/self/exe")
    except OSError:
        return not sys.executable
    return "python" not in os.path.basename(program)


def binary() -> Path:
    """Return the ``caffe`` program: the one beside this Python, or else the first on PATH.

    Raises:
        UserError: there is none.
    """
    beside = Path(sys.executable).parent / "caffe"
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("caffe")
    if found:
        return Path(found)
    raise UserError(f"no 'caffe' program beside {sys.executable} or on PATH: run 'make setup'")


def binary_environment() -> dict[str, str]:
    """Return the environment in which the ``caffe`` binary embeds *this* Python installation.

    An embedded Python looks ``python3`` up on PATH to find its virtual environment.
    """
    environment = dict(os.environ)
    environment.pop("PYTHONHOME", None)
    bin_directory = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([bin_directory, environment.get("PATH", os.defpath)])
    if sys.prefix != sys.base_prefix:
        environment["VIRTUAL_ENV"] = sys.prefix
    return environment


_FATAL = re.compile(r"^F\d{4} \S+ +\d+ (?P<where>\S+)\] (?P<what>.*)$", re.MULTILINE)
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)(?:: .*)?$", re.MULTILINE)
_SIGNAL = re.compile(r"^\*\*\* (?P<signal>SIG\w+) ", re.MULTILINE)
_FRAME = re.compile(r"^ +@ +0x\w+ (?P<function>caffe::\S+)$", re.MULTILINE)
_OURS = re.compile(r"^caffe-pysgd: (?P<what>.*)$", re.MULTILINE)


def failure_reason(log: str) -> str:
    """Return, from the log of a Caffe that died, the one line that says why."""
    ours = _OURS.search(log)
    if ours:
        return ours["what"]
    fatal = _FATAL.search(log)
    if fatal:
        return f"Caffe says: {fatal['what'].strip()} ({fatal['where']})"
    exceptions = [e for e in _EXCEPTION.findall(log) if "without setting an error" not in e]
    if exceptions:
        return f"Caffe ended with: {exceptions[-1]}"
    signal, frame = _SIGNAL.search(log), _FRAME.search(log)
    if signal and frame:
        raised = "a Python layer raised an exception, " if "PythonLayer" in frame[0] else ""
        return f"Caffe says no more than: {raised}{signal['signal']} in {frame['function']}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"Caffe ended with: {lines[-1]}" if lines else "Caffe ended without a word"
