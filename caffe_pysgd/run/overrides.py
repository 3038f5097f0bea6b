"""What changes a run besides its YAML: the files that it is based on, and single settings."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple, Union

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.run.yaml_file import is_yaml, read_value, read_yaml

PATHS = ("solver", "run_dir", "module_path")
"""The keys whose values are relative to the file that they are in."""

_MOST_FILES = 32

_KEY = re.compile(r"\w+(\[\d+\]|\.\w+)*")
_STEP = re.compile(r"(\w+)|\[(\d+)\]")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def read_merged(path: Path) -> Dict[Any, Any]:
    """Return what a YAML and the files that it is based on say together.

    A mapping is merged key by key; any other value takes the place of the base's. Each file's paths
    are relative to that file, and come back relative to the working directory. A solver file stands
    for a YAML that names it. Modules of the user's own are looked for beside the last file that
    names one, unless ``module_path`` says where.

    Raises:
        UserError: a file cannot be read, or is based on itself.
    """
    layers: List[Dict[Any, Any]] = []
    following: Any = path
    seen: List[Path] = []
    while following is not None:
        seen.append(following)
        layer, following = _read_layer(following)
        layers.insert(0, layer)
        if following in seen or len(seen) > _MOST_FILES:
            chain = " -> ".join(map(str, [*seen, following]))
            raise UserError(f"{path}: base: a file is based on itself: {chain[:200]}")
    content: Dict[Any, Any] = {}
    for layer in layers:
        content = merge(content, layer)
    return content


def _read_layer(path: Path) -> Tuple[Dict[Any, Any], Any]:
    """Return what one file says, its paths seen from here, and the file that it is based on."""
    if not is_yaml(path):
        return {"solver": str(path)}, None
    content = dict(read_yaml(path))
    base = content.pop("base", None)
    if base is not None and (not isinstance(base, str) or not os.path.isfile(path.parent / base)):
        expected = "a YAML or a solver file, relative to this one"
        raise SettingError("base", base, expected, where=path)
    for key in PATHS:
        if isinstance(content.get(key), str):
            content[key] = str(path.parent / content[key])
    snapshots = content.get("snapshots")
    if isinstance(snapshots, dict) and isinstance(snapshots.get("prefix"), str):
        content["snapshots"] = {**snapshots, "prefix": beside(path, snapshots["prefix"])}
    if _names_modules(content):
        content.setdefault("module_path", str(path.parent))
    return content, None if base is None else path.parent / base


def beside(path: Path, prefix: str) -> str:
    """Return a snapshots' prefix as it is seen from here; a ``/`` at its end makes it a folder."""
    return f"{path.parent / prefix}{'/' if prefix.endswith('/') else ''}"


def _names_modules(content: Dict[Any, Any]) -> bool:
    """Return whether a file names a rule, a policy or a logger of the user's own."""
    update, loggers = content.get("update"), content.get("loggers")
    groups = [update]
    if isinstance(update, dict) and isinstance(update.get("params"), list):
        groups += update["params"]
    values = [g.get(key) for g in groups if isinstance(g, dict) for key in ("rule", "lr_policy")]
    values += loggers if isinstance(loggers, list) else []
    return any(isinstance(value, str) and ":" in value for value in values)


def merge(base: Dict[Any, Any], changes: Dict[Any, Any]) -> Dict[Any, Any]:
    """Return the base with the changes: mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def set_from_text(content: Dict[Any, Any], setting: str) -> None:
    """Put ``key=value`` into a run's content; the value is read as YAML.

    Raises:
        UserError: it is not of that form, or there is no such place.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise UserError(f"--set {setting}: expected key=value, such as update.base_lr=0.01")
    put(content, key.strip(), read_value(text, f"--set {key}"), "--set ")


def put(content: Dict[Any, Any], key: str, value: Any, where: str = "") -> None:
    """Put a value where a key such as ``update.params[0].lr_mult`` points.

    ``solver.NAME`` is a field of the solver file. Lists and mappings on the way are copied, so that
    content which shares them stays as it is.

    Raises:
        UserError: the key is none, or leads through something that is not there; ``where`` is put
            before the key in what it says.
    """
    if not _KEY.fullmatch(key):
        raise UserError(
            f"{where}{key[:120]}: expected a key, such as update.base_lr, "
            "update.params[0].lr_mult or solver.random_seed"
        )
    if key.startswith("solver."):
        key = f"solver_overrides.{key[len('solver.') :]}"
    steps: List[Union[str, int]] = [
        int(number) if number else name for name, number in _STEP.findall(key)
    ]
    here: Any = content
    for step, following in zip(steps, steps[1:]):
        inner = _at(here, step, key, where)
        if isinstance(following, int):
            inner = list(inner) if isinstance(inner, list) else []
        else:
            inner = dict(inner) if isinstance(inner, dict) else {}
        here[step] = inner
        here = inner
    _at(here, steps[-1], key, where)
    here[steps[-1]] = value


def _at(here: Any, step: Union[str, int], key: str, where: str) -> Any:
    """Return what is at one step of a key; nothing where it may be put."""
    if isinstance(step, str):
        return here.get(step)
    if step >= len(here):
        held = f"entries 0 to {len(here) - 1}" if here else "none"
        raise UserError(f"{where}{key}: there is no entry {step}; the run has {held}")
    return here[step]


def expand_run_dir(run_dir: str, source: Path) -> str:
    """Return a ``run_dir`` with ``{name}`` and ``{now}`` replaced.

    The name is that of the file without its suffix, the time is that of this moment, to the second.

    Raises:
        SettingError: there is another placeholder in it.
    """
    values = {"name": source.stem, "now": time.strftime("%Y%m%d-%H%M%S")}
    for name in _PLACEHOLDER.findall(run_dir):
        if name not in values:
            expected = one_of([f"{{{one}}}" for one in values], f"{{{name}}}")
            raise SettingError("run_dir", f"{{{name}}}", expected, where=source)
    return _PLACEHOLDER.sub(lambda match: values[match[1]], run_dir)


def apply_settings(content: Dict[Any, Any], settings: Sequence[str]) -> None:
    """Put all ``key=value`` settings of a command line into a run's content, in order."""
    for setting in settings:
        set_from_text(content, setting)
