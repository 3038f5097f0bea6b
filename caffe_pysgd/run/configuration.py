"""YAML to a typed, validated configuration; a bare solver.prototxt is one, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Sequence,
    get_args,
)

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
from typing_extensions import Annotated

from caffe_pysgd.errors import SettingError, UserError, nearest, one_of
from caffe_pysgd.run.overrides import apply_settings, expand_run_dir, read_merged
from caffe_pysgd.run.settings import reaction_of
from caffe_pysgd.update import HyperParameters


def _fits_float32(value: float) -> float:
    if abs(value) > 3.402823e38:
        raise PydanticCustomError("too_large", "what a float32 holds, 3.4e38 at most")
    return value


# A float in caffe.proto; a whole number will do.
Real = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_fits_float32)]
Count = Annotated[int, Field(ge=0, lt=2**31)]  # an int32 in caffe.proto
Name = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Base of what a YAML may say: no other keys, no other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _HyperParameters(Strict):
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


class ProbeOptions(Strict):
    """One element of one parameter, of which the audit keeps every stage's value."""

    param: str
    index: List[Count]


def _as_mapping(value: Any) -> Any:
    """``audit:`` and ``audit: true`` ask for one as it is by default."""
    return {} if value is None or value is True else None if value is False else value


class AuditOptions(Strict):
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


class BestOptions(Strict):
    """By which score a snapshot is the best: one key of the two, and the name of a test output."""

    max: Optional[Name] = None
    min: Optional[Name] = None


def _one_score(value: BestOptions) -> BestOptions:
    if (value.max is None) == (value.min is None):
        raise PydanticCustomError("one_score", "{max: OUTPUT} or {min: OUTPUT}")
    return value


class SnapshotOptions(Strict):
    """Where the run's snapshots go, and which of them stay."""

    prefix: Optional[Name] = None
    overwrite: StrictBool = False
    keep_last: Optional[Annotated[Count, Field(ge=1)]] = None
    keep_best: Optional[Annotated[BestOptions, AfterValidator(_one_score)]] = None


class RankOptions(Strict):
    """How several processes train together, over MPI."""

    count: Annotated[Count, Field(ge=1)] = 1
    batch: Literal["each", "total"] = "each"
    timeout: Annotated[Real, Field(gt=0)] = 300.0
    check_every: Count = 100
    bucket_bytes: Count = 1 << 18
    sources: Dict[str, List[str]] = {}


LOGGERS = ("tensorboard", "csv", "mlflow")


def _is_logger(name: str) -> str:
    if name not in LOGGERS and ":" not in name:
        raise PydanticCustomError("logger", one_of(LOGGERS, name, " or module:Class"))
    return name


class Configuration(Strict):
    """A run: the stock solver file, where its files go, the update, snapshots and the audit.

    ``base`` is read by :func:`read_merged`, and ``module_path`` is always given once a file was
    read: a folder, relative to the working directory.
    """

    base: Optional[Path] = Field(default=None, strict=False)
    solver: Path = Field(strict=False)
    run_dir: Optional[Path] = Field(default=None, strict=False)
    module_path: Optional[Path] = Field(default=None, strict=False)
    solver_overrides: Dict[str, Any] = {}
    update: UpdateOptions = UpdateOptions()
    snapshots: Annotated[SnapshotOptions, BeforeValidator(_as_mapping)] = SnapshotOptions()
    audit: Annotated[Optional[AuditOptions], BeforeValidator(_as_mapping)] = None
    ranks: RankOptions = RankOptions()
    loggers: List[Annotated[str, AfterValidator(_is_logger)]] = []
    log_every: Optional[Annotated[Count, Field(ge=1)]] = None

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


def read_configuration(path: Path, settings: Sequence[str] = ()) -> Configuration:
    """Return the configuration in a YAML file, or the one that a bare solver file stands for.

    Paths in a YAML are relative to the YAML.

    Args:
        path: the file.
        settings: ``key=value``, each in the place of what the file says.

    Raises:
        UserError: the file cannot be read, or a key or value is not allowed; file, key, what was
            found and what is allowed are named.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: there is no such file; give a solver.prototxt or a YAML")
    content = read_merged(path)
    apply_settings(content, settings)
    return check_content(content, path)


def check_content(content: Mapping[Any, Any], path: Path) -> Configuration:
    """Return the configuration that a run's merged content comes to; see :func:`read_merged`.

    Args:
        content: as :func:`read_merged` returns it.
        path: the file that is named in errors, and by which modules are looked for.

    Raises:
        UserError: as for :func:`read_configuration`.
    """
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        raise explained(path, error, Configuration) from error
    if not os.path.exists(configuration.solver):
        problem = "there is no such file (a path in a YAML is relative to the YAML)"
        raise SettingError("solver", str(configuration.solver), problem=problem, where=path)
    beside: Dict[str, Any] = {"module_path": configuration.module_path or path.parent}
    if configuration.run_dir is not None:
        beside["run_dir"] = Path(expand_run_dir(str(configuration.run_dir), path))
    return configuration.model_copy(update=beside)


_EXPECTED = {
    "model_type": "a mapping",
    "path_type": "a path, as text",
    "list_type": "a list",
    "invalid_key": "a key that is text",
}


def explained(where: object, error: ValidationError, model: Any) -> UserError:
    """Return what is wrong in a YAML as one line.

    Args:
        where: the file.
        error: what the model raised.
        model: what the file was to be.
    """
    # A misspelt key comes before the missing one that it was meant to be.
    first: Any = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    location: Sequence[Any] = first["loc"]
    key = _key(location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        hint = nearest(str(location[-1]), known) or f"; expected one of {', '.join(known)}"
        return UserError(f"{where}: {key}: unknown key{hint}")
    if first["type"] == "missing":
        return UserError(f"{where}: {key}: is missing")
    expected = _EXPECTED.get(first["type"], first["msg"].replace("Input should be ", ""))
    return SettingError(key, first["input"], expected, where=where)


def _key(location: Sequence[Any]) -> str:
    """Return the path of a key as one writes it: ``update.params[0].lr_mult``."""
    key = ""
    for part in location:
        if isinstance(part, int) and key:
            key += f"[{part}]"
        elif part != "[key]":  # pydantic's own addition
            key += f".{part}" if key else str(part)
    return key if len(key) <= 120 else f"{key[:120]}..."


def _known_keys(model: Any, location: Sequence[Any]) -> List[str]:
    for part in location:
        if part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[Any]:
    """Yield the models in the annotation of a field."""
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
