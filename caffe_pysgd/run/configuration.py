"""YAML to a typed, validated configuration; a bare solver.prototxt is one, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Optional, Sequence

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from caffe_pysgd.errors import SettingError, UserError, nearest
from caffe_pysgd.run.settings import reaction_of
from caffe_pysgd.run.yaml_file import is_yaml, read_yaml
from caffe_pysgd.update import HyperParameters


def _fits_float32(value: float) -> float:
    if abs(value) > 3.402823e38:
        raise PydanticCustomError("too_large", "what a float32 holds, 3.4e38 at most")
    return value


# A float in caffe.proto; a whole number will do.
Real = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_fits_float32)]
Count = Annotated[int, Field(ge=0, lt=2**31)]  # an int32 in caffe.proto
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _HyperParameters(_Strict):
    """The hyper-parameters that one parameter may have for itself, named as in caffe.proto."""

    base_lr: Optional[Real] = None
    lr_policy: Optional[str] = None
    gamma: Optional[Real] = None
    power: Optional[Real] = None
    stepsize: Optional[Count] = None
    stepvalue: Optional[List[Count]] = None
    momentum: Optional[Real] = None
    momentum2: Optional[Real] = None
    delta: Optional[Real] = None
    rms_decay: Optional[Real] = None
    weight_decay: Optional[Real] = None
    regularization_type: Optional[str] = None

    # What caffe.proto has no field for.
    warmup_iter: Optional[Count] = None
    warmup_start: Optional[Real] = None
    lr_min: Optional[Real] = None
    period_mult: Optional[Real] = None
    pct_start: Optional[Real] = None
    div_factor: Optional[Real] = None
    final_div_factor: Optional[Real] = None
    lr_table: Optional[Dict[Count, Real]] = None
    trust_coefficient: Optional[Real] = None

    def hyperparameters(self) -> Dict[str, Any]:
        """Return the hyper-parameters that are given here."""
        names = HyperParameters.__dataclass_fields__
        given = {name: getattr(self, name, None) for name in names}
        if given["lr_table"]:
            given["lr_table"] = sorted(given["lr_table"].items())
        return {name: value for name, value in given.items() if value is not None}


class ParameterGroup(_HyperParameters):
    """What applies to the parameters that a pattern matches; the first match wins."""

    match: str = Field(description="shell pattern over display names, such as 'conv1/*'")
    rule: Optional[str] = None
    lr_mult: Optional[Real] = None
    decay_mult: Optional[Real] = None
    freeze_until: Optional[Count] = None
    freeze_from: Optional[Count] = None


class UpdateOptions(_HyperParameters):
    """How the update is computed; what is not given comes from the solver file."""

    rule: Optional[str] = None
    kernels: Literal["auto", "fused", "native", "numpy"] = "auto"
    exact: StrictBool = True
    resume: Literal["auto", "always", "never"] = "auto"
    on_nonfinite: Optional[Literal["stop", "skip", "ignore"]] = None
    log_outputs: StrictBool = True
    max_iter: Optional[Count] = None
    plateau_winsize: Optional[List[Count]] = None
    clip_gradients: Optional[Real] = None
    clip_type: Optional[str] = None
    iter_size: Optional[Annotated[Count, Field(ge=1)]] = None
    params: List[ParameterGroup] = []

    def names_modules(self) -> bool:
        """Return whether a rule or a policy is the user's own, ``module:name``."""
        names = [self.rule, self.lr_policy]
        names += [name for group in self.params for name in (group.rule, group.lr_policy)]
        return any(":" in name for name in names if name)


class ProbeOptions(_Strict):
    """One element of one parameter, of which the audit keeps every stage's value."""

    param: str
    index: List[Count]


def _as_mapping(value: Any) -> Any:
    """``audit:`` and ``audit: true`` ask for one as it is by default."""
    return {} if value is None or value is True else None if value is False else value


class AuditOptions(_Strict):
    """What is recorded of the run."""

    every: Annotated[Count, Field(ge=1)] = 1
    file: Name = "audit.sqlite"
    thin_after: Count = 0
    quantities: List[str] = []
    params: List[str] = []
    histograms: Count = 0
    probes: List[ProbeOptions] = []
    weights_every: Optional[Count] = None
    on_nonfinite: Optional[Literal["raise", "skip", "record"]] = None  # of version 0.1


class BestOptions(_Strict):
    """By which score a snapshot is the best: one key of the two, and the name of a test output."""

    max: Optional[Name] = None
    min: Optional[Name] = None


def _one_score(value: BestOptions) -> BestOptions:
    if (value.max is None) == (value.min is None):
        raise PydanticCustomError("one_score", "{max: OUTPUT} or {min: OUTPUT}")
    return value


class SnapshotOptions(_Strict):
    """Where the run's snapshots go, and which of them stay."""

    prefix: Optional[Name] = None
    overwrite: StrictBool = False
    keep_last: Optional[Annotated[Count, Field(ge=1)]] = None
    keep_best: Optional[Annotated[BestOptions, AfterValidator(_one_score)]] = None


class RankOptions(_Strict):
    """How several processes train together, over MPI."""

    count: Annotated[Count, Field(ge=1)] = 1
    batch: Literal["each", "total"] = "each"
    timeout: Annotated[Real, Field(gt=0)] = 300.0
    check_every: Count = 100
    bucket_bytes: Count = 1 << 18
    sources: Dict[str, List[str]] = {}


class Configuration(_Strict):
    """A run: the stock solver file, where its files go, the update, snapshots and the audit."""

    solver: Path = Field(strict=False)
    run_dir: Optional[Path] = Field(default=None, strict=False)
    update: UpdateOptions = UpdateOptions()
    snapshots: Annotated[SnapshotOptions, BeforeValidator(_as_mapping)] = SnapshotOptions()
    audit: Annotated[Optional[AuditOptions], BeforeValidator(_as_mapping)] = None
    ranks: RankOptions = RankOptions()

    @property
    def on_nonfinite(self) -> str:
        """What happens at a gradient that is not finite; empty where nobody looks.

        Caffe trains on with it. A record that goes on with NaN is of no use, so where there is an
        audit, training stops.
        """
        said = self.update.on_nonfinite
        if self.audit is None:
            return "" if said in (None, "ignore") else str(said)
        return said or reaction_of(self.audit.model_dump()) or "stop"


def read_configuration(path: Path) -> Configuration:
    """Return the configuration in a YAML file, or the one that a bare solver file stands for.

    Paths in a YAML are relative to the YAML.

    Raises:
        UserError: the file cannot be read, or a key or value is not allowed; file, key, what was
            found and what is allowed are named.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: there is no such file; give a solver.prototxt or a YAML")
    if not is_yaml(path):
        return Configuration(solver=path)
    content = read_yaml(path)
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        # A misspelt key comes before the missing one that it was meant to be.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise _explained(path, first) from error
    beside: Dict[str, Any] = {"solver": path.parent / configuration.solver}
    if not os.path.exists(beside["solver"]):
        problem = "there is no such file (a path in a YAML is relative to the YAML)"
        raise SettingError("solver", str(beside["solver"]), problem=problem, where=path)
    if configuration.run_dir is not None:
        beside["run_dir"] = path.parent / configuration.run_dir
    if configuration.snapshots.prefix is not None:
        given = configuration.snapshots.prefix
        # A / at its end makes it a folder; a Path has none.
        prefix = f"{path.parent / given}{'/' if given.endswith('/') else ''}"
        beside["snapshots"] = configuration.snapshots.model_copy(update={"prefix": prefix})
    return configuration.model_copy(update=beside)


_EXPECTED = {
    "model_type": "a mapping",
    "path_type": "a path, as text",
    "list_type": "a list",
    "invalid_key": "a key that is text",
}


def _explained(path: Path, error: Any) -> UserError:
    location: Sequence[Any] = error["loc"]
    key = _key(location)
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        hint = nearest(str(location[-1]), known) or f"; expected one of {', '.join(known)}"
        return UserError(f"{path}: {key}: unknown key{hint}")
    if error["type"] == "missing":
        return UserError(f"{path}: {key}: is missing")
    expected = _EXPECTED.get(error["type"], error["msg"].replace("Input should be ", ""))
    return SettingError(key, error["input"], expected, where=path)


def _key(location: Sequence[Any]) -> str:
    """Return the path of a key as one writes it: ``update.params[0].lr_mult``."""
    key = ""
    for part in location:
        if isinstance(part, int) and key:
            key += f"[{part}]"
        elif part != "[key]":  # pydantic's own addition
            key += f".{part}" if key else str(part)
    return key if len(key) <= 120 else f"{key[:120]}..."


def _known_keys(location: Sequence[Any]) -> List[str]:
    models = [_MODELS[part] for part in location if part in _MODELS]
    return list((models or [Configuration])[-1].model_fields)


_MODELS: Dict[Any, Any] = {
    "update": UpdateOptions,
    "params": ParameterGroup,
    "snapshots": SnapshotOptions,
    "keep_best": BestOptions,
    "ranks": RankOptions,
    "audit": AuditOptions,
    "probes": ProbeOptions,
}
