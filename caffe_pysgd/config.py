"""YAML to a typed, validated configuration; a bare solver.prototxt is one, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Sequence, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from caffe_pysgd.errors import UserError, nearest

Real = Union[float, int]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ParameterGroup(_Strict):
    """What applies to the parameters that a pattern matches; the first match wins."""

    match: str = Field(description="shell pattern over display names, such as 'conv1/*'")
    lr_mult: Optional[Real] = None
    decay_mult: Optional[Real] = None


class UpdateOptions(_Strict):
    """How the update is computed; what is not given comes from the solver file."""

    rule: Optional[str] = None
    kernels: Literal["auto", "native", "numpy"] = "auto"
    exact: StrictBool = True
    resume: Literal["auto", "always", "never"] = "auto"
    base_lr: Optional[Real] = None
    lr_policy: Optional[str] = None
    gamma: Optional[Real] = None
    power: Optional[Real] = None
    stepsize: Optional[int] = None
    stepvalue: Optional[List[int]] = None
    max_iter: Optional[int] = None
    momentum: Optional[Real] = None
    momentum2: Optional[Real] = None
    delta: Optional[Real] = None
    rms_decay: Optional[Real] = None
    weight_decay: Optional[Real] = None
    regularization_type: Optional[str] = None
    clip_gradients: Optional[Real] = None
    iter_size: Optional[int] = None
    params: List[ParameterGroup] = []

    def overrides(self) -> Dict[str, Any]:
        """Return the hyper-parameters that are given here."""
        other = {"rule", "kernels", "exact", "resume", "params"}
        return self.model_dump(exclude=other, exclude_none=True)


class Configuration(_Strict):
    """A run: the stock solver file, where the run's files go, and the update."""

    solver: Path = Field(strict=False)
    run_dir: Optional[Path] = Field(default=None, strict=False)
    update: UpdateOptions = UpdateOptions()


def read_configuration(path: Path) -> Configuration:
    """Return the configuration in a YAML file, or the one that a bare solver file stands for.

    Paths in a YAML are relative to the YAML.

    Raises:
        UserError: the file cannot be read, or a key or value is not allowed; file, key, what was
            found and what is allowed are named.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file; give a solver.prototxt or a YAML")
    if path.suffix not in (".yaml", ".yml"):
        return Configuration(solver=path)
    content = _read_yaml(path)
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error.errors()[0], content)}") from error
    beside = {"solver": path.parent / configuration.solver}
    if configuration.run_dir is not None:
        beside["run_dir"] = path.parent / configuration.run_dir
    return configuration.model_copy(update=beside)


def _read_yaml(path: Path) -> Any:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {content!r}, a mapping with the key 'solver' is wanted")
    return content


def _explain(error: Any, content: Any) -> str:
    location: Sequence[Any] = error["loc"]
    key = _key(location)
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return f"{key}: unknown key{nearest(str(location[-1]), known) or _list(known)}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    allowed = error["msg"].replace("Input should be ", "allowed is ")
    return f"{key}: found {error['input']!r}, {allowed}"


def _key(location: Sequence[Any]) -> str:
    """Return the path of a key as one writes it: ``update.params[0].lr_mult``."""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part not in ("float", "int"):  # pydantic's names for the two branches of a Real
            key += f".{part}" if key else str(part)
    return key


def _known_keys(location: Sequence[Any]) -> List[str]:
    model: Any = Configuration
    for part in location:
        if part == "update":
            model = UpdateOptions
        elif part == "params":
            model = ParameterGroup
    return list(model.model_fields)


def _list(known: List[str]) -> str:
    return f"; allowed are {', '.join(known)}"
