"""The way to the installed Caffe: its compiled module, its messages, its binary.

``import caffe`` takes seconds, because ``caffe/__init__.py`` pulls in scikit-image and SciPy for
its image helpers. Everything here needs the compiled module and the protobuf classes alone, so
the package is imported in two steps: its submodules at once, its ``__init__`` when somebody first
asks the package for a name that is not there yet. A user's own ``import caffe`` in the same
process therefore sees the whole package. And where a program calls another module ``caffe``, ours,
the package is still found.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
import sys
import types
from contextlib import contextmanager
from functools import lru_cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Set

from caffe_pysgd.errors import UserError

_MISSING = (
    "Caffe is not importable by {python}: run 'make setup' in the project, or install "
    "caffe_pysgd with the Python that has pycaffe (docs/install.md)"
)


_US = __name__.partition(".")[0]


class _PackageInTwoSteps(types.ModuleType):
    """The ``caffe`` package before its ``__init__.py`` was run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(name)  # the import system looks for these by itself
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        with _in_its_place():
            self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)


_known: Optional[types.ModuleType] = None


def _replaced() -> bool:
    """Return whether a program has put our package in the place of ``caffe``."""
    return sys.modules.get("caffe") is sys.modules[_US]


def _the_package() -> types.ModuleType:
    """Return the package ``caffe``, whatever is called so now; its ``__init__.py`` may be to come.

    Raises:
        UserError: there is none.
    """
    global _known
    if "caffe" in sys.modules and not _replaced():
        _known = sys.modules["caffe"]
    if _known is None:
        spec = PathFinder.find_spec("caffe")
        if spec is None:
            raise UserError(_MISSING.format(python=sys.executable or "this program"))
        _known = importlib.util.module_from_spec(spec)
        _known.__class__ = _PackageInTwoSteps
        there = [name for name in sys.modules if re.fullmatch(r"caffe\.\w+", name)]
        vars(_known).update({name.partition(".")[2]: sys.modules[name] for name in there})
    return _known


@contextmanager
def _in_its_place() -> Iterator[types.ModuleType]:
    """Let ``caffe`` be the package of that name while its own modules import each other."""
    ours = sys.modules["caffe"] if _replaced() else None
    sys.modules["caffe"] = package = _the_package()
    try:
        yield package
    finally:
        if ours:
            sys.modules["caffe"] = ours


class _Submodules(MetaPathFinder, Loader):
    """Finds pycaffe's modules in our package: ``caffe_pysgd.io`` is ``caffe.io``, the same object.

    So a program changes over with ``import caffe_pysgd as caffe``, or with
    ``sys.modules["caffe"] = caffe_pysgd``, whatever it imports of pycaffe.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Optional[ModuleSpec]:
        package, _, submodule = fullname.partition(".")
        first = submodule.partition(".")[0]
        if package not in ("caffe", _US) or not first:
            return None
        if package == "caffe":  # a submodule's path is that of its own package
            own = first == submodule and _replaced()
            return PathFinder.find_spec(fullname, _the_package().__path__) if own else None
        if first in _own_modules() or not PathFinder.find_spec(
            f"caffe.{first}", _the_package().__path__
        ):
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """Return pycaffe's module."""
        module: types.ModuleType = _import(spec.name.partition(".")[2])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Give the module, which was executed under its own name, its own specification back."""
        assert module.__spec__
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.insert(0, _Submodules())


@lru_cache(maxsize=None)
def _own_modules() -> Set[str]:
    return {module.name for module in pkgutil.iter_modules(sys.modules[_US].__path__)}


def _import(submodule: str) -> Any:
    try:
        with _in_its_place():
            return importlib.import_module(f"caffe.{submodule}")
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("caffe."):
            where = ", ".join(_the_package().__path__)
            raise UserError(
                f"{where}: is not pycaffe, though it is called so: there is no {error.name}; "
                "move it out of Python's way (PyPI's 'caffe' is an empty placeholder: uninstall it)"
            ) from error
        # A NumPy of another ABI and a protobuf too new for caffe_pb2.py end here.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Caffe is installed but cannot be imported: {reason}; take the versions of NumPy and "
            "protobuf that go with it (docs/install.md)"
        ) from error


def compiled() -> Any:
    """Return pycaffe's compiled module: ``Net``, ``Layer``, the solvers, ``log``.

    Raises:
        UserError: there is no importable Caffe.
    """
    return _import("_caffe")


def is_loaded() -> bool:
    """Return whether Caffe is in this process."""
    return "caffe._caffe" in sys.modules


def package() -> Any:
    """Return the whole package ``caffe``, with what its Python half adds to nets.

    Raises:
        UserError: there is no importable Caffe.
    """
    compiled()
    package = _the_package()
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
            "this Caffe was built without the Python layer: the hosts hook and solver "
            "('caffe-pysgd solve') need none, or build it with WITH_PYTHON_LAYER=1, or run "
            "'make setup' for one that has it"
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


def find_library() -> str:
    """Return that file without loading it.

    Raises:
        UserError: there is no importable Caffe.
    """
    if not is_loaded():
        spec = PathFinder.find_spec("caffe._caffe", _the_package().__path__)
        if spec and spec.origin:
            return spec.origin
    return library_path()


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
    found = find_binary()
    if found is None:
        raise UserError(
            f"no 'caffe' program beside {sys.executable} or on PATH: the hosts hook and solver "
            "('caffe-pysgd solve') need none, or run 'make setup' for a Caffe that has it"
        )
    return found


def find_binary() -> Optional[Path]:
    """Return the ``caffe`` program, or None: not every Caffe comes with it."""
    return find_program("caffe")


def find_program(name: str) -> Optional[Path]:
    """Return a program: the one beside this Python, or else the first on PATH; None if none."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(places))
    return Path(found) if found else None


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


# glog writes the day as 1125, from version 0.5 on as 20261125.
_FATAL = re.compile(r"^F(\d{4}){1,2} \S+ +\d+ (?P<where>\S+)\] (?P<what>.*)$", re.MULTILINE)
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
