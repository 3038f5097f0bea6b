"""The user's step: a function of theirs that does one iteration by hand."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Iterator, List

from caffe_pysgd.errors import SettingError, UserError, nearest
from caffe_pysgd.proof.diagnose.lockstep import Step
from caffe_pysgd.user_code import why_no_user_code

UserStep = Callable[..., Any]


def make_step(function: UserStep) -> Step:
    """Return a step that calls the user's function as it wants to be called.

    Raises:
        UserError: it is no function, or one of another form. The step itself raises it where the
            function raises something.
    """
    names = _arguments(function)
    running: List[Iterator[Any]] = []

    def step(solver: Any, iteration: int) -> None:
        given = (solver.net if names[0] == "net" else solver, iteration)[: len(names)]
        try:
            returned = running[0] if running else function(*given)
            if inspect.isgenerator(returned):
                running[:] = [returned]
                next(returned)
        except StopIteration as error:
            raise UserError(
                f"step {_name(function)}: ended before iteration {iteration}; a generator is to "
                "yield after each iteration, for ever"
            ) from error
        except Exception as error:
            raise UserError(
                f"step {_name(function)}: iteration {iteration}: {type(error).__name__}: {error} "
                f"({_place(error)})"
            ) from error

    return step


def _arguments(function: UserStep) -> List[str]:
    if not callable(function):
        raise SettingError("step", function, "a function")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ["solver"]
    names = [p.name for p in parameters if p.default is p.empty and p.kind in _POSITIONAL]
    if len(names) not in (1, 2) or any(
        p.default is p.empty and p.kind is p.KEYWORD_ONLY for p in parameters
    ):
        raise UserError(
            f"step {_name(function)}: takes ({', '.join(names)}); it is called as step(solver), "
            "step(net) or step(solver, iteration)"
        )
    return names


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def load_step(named: str) -> UserStep:
    """Return the function that ``file.py:function`` names.

    Raises:
        UserError: there is no such file or function, or the file cannot be imported.
    """
    file, colon, name = named.rpartition(":")
    if not colon or not name.isidentifier():
        raise SettingError("--step", named, "file.py:function")
    forbidden = why_no_user_code()
    if forbidden:
        raise UserError(f"--step: no code of a user's own is run here: {forbidden}")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--step: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--step: {path}: is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"--step: importing {path} failed: {type(error).__name__}: {error} ({_place(error)})"
        ) from error
    try:
        function: UserStep = getattr(module, name)
    except AttributeError as error:
        raise UserError(
            f"--step: {path} has no function '{name}'{nearest(name, vars(module))}"
        ) from error
    return function


def _name(function: UserStep) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _place(error: BaseException) -> str:
    """Return file and line of the user's code that raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if frame.filename != __file__ and "<frozen" not in frame.filename
    ]
    frame = own[-1] if own else frames[-1]
    return f"{frame.filename}:{frame.lineno}"
