"""What a sweep varies: choices and ranges of any keys, with keys that only one choice has."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Sequence, Tuple, Union

import numpy as np

from caffe_pysgd.errors import SettingError, UserError

if TYPE_CHECKING:
    from optuna import Trial

Values = Dict[str, Any]
"""The value of each key that a run has, in the order of the space."""


@dataclass(frozen=True)
class Option:
    """One value of a choice, and the space of the keys that come with it."""

    value: Any
    space: Tuple[Dimension, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A key with a list of values.

    Attributes:
        key: such as ``update.rule``.
        name: what Optuna calls it: the key, and which option brings it.
        options: the values.
    """

    key: str
    name: str
    options: Tuple[Option, ...]

    def suggest(self, trial: Trial) -> Any:
        """Return the value that Optuna chooses."""
        texts = [_text(option.value) for option in self.options]
        chosen = trial.suggest_categorical(self.name, texts)
        return self.options[texts.index(chosen)]


@dataclass(frozen=True)
class Range:
    """A key with a range of numbers.

    Attributes:
        key, name: as of a :class:`Choice`.
        low, high: the bounds, both of them allowed; whole numbers if both are.
        log: whether it is searched on a logarithmic scale.
        points: how many values a grid takes.
    """

    key: str
    name: str
    low: Union[int, float]
    high: Union[int, float]
    log: bool = False
    points: int = 0

    def suggest(self, trial: Trial) -> Any:
        """Return the value that Optuna chooses."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def values(self) -> List[Any]:
        """Return a grid's values, evenly spread, the bounds among them.

        Raises:
            UserError: it says nothing about how many.
        """
        if not self.points:
            raise UserError(f"space.{self.key}: a grid of a range needs 'points', how many values")
        spread = np.geomspace if self.log else np.linspace
        values = [float(f"{value:.6g}") for value in spread(self.low, self.high, self.points)]
        values = [min(max(value, self.low), self.high) for value in values]
        if isinstance(self.low, int) and isinstance(self.high, int):
            values = [round(value) for value in values]
        return list(dict.fromkeys(values))


Dimension = Union[Choice, Range]


@dataclass(frozen=True)
class Point:
    """One combination of values.

    Attributes:
        values: by key.
        params: by Optuna's names, as Optuna keeps them.
    """

    values: Values = field(default_factory=dict)
    params: Dict[str, Any] = field(default_factory=dict)

    def __add__(self, other: Point) -> Point:
        return Point({**self.values, **other.values}, {**self.params, **other.params})


def parse_space(space: Mapping[str, Any], of: str = "") -> Tuple[Dimension, ...]:
    """Return the dimensions in a YAML's ``space``.

    Args:
        space: by key: a list of values, or a range ``{low, high, log, points}``. A value that
            brings keys of its own is ``{value: V, with: SPACE}``.
        of: the option that these keys come with, for their names.

    Raises:
        SettingError: something else is said.
    """
    return tuple(_dimension(key, said, of) for key, said in space.items())


def _dimension(key: Any, said: Any, of: str) -> Dimension:
    where = f"space.{key}"
    if not isinstance(key, str):
        raise SettingError("space", key, "a key of a run, such as update.base_lr")
    name = f"{key} ({of})" if of else key
    if isinstance(said, dict):
        return _range(key, name, said, where)
    if not isinstance(said, list) or not said:
        raise SettingError(where, said, "a list of values, or a range {low: A, high: B}")
    options = tuple(_option(key, one, where) for one in said)
    texts = [_text(option.value) for option in options]
    if len(set(texts)) < len(texts):
        raise SettingError(where, said, "values that differ")
    return Choice(key, name, options)


def _option(key: str, said: Any, where: str) -> Option:
    if not isinstance(said, dict) or "value" not in said:
        return Option(said)
    extra = set(said) - {"value", "with"}
    inner = said.get("with", {})
    if extra or not isinstance(inner, dict):
        raise SettingError(where, said, "{value: V, with: {KEY: VALUES, ...}}")
    inner = {k: v if isinstance(v, (list, dict)) else [v] for k, v in inner.items()}
    return Option(said["value"], parse_space(inner, f"{key}={_shown(said['value'])}"))


def _range(key: str, name: str, said: Dict[Any, Any], where: str) -> Range:
    unknown = set(said) - {"low", "high", "log", "points"}
    if unknown or not {"low", "high"} <= set(said):
        raise SettingError(where, said, "a range {low: A, high: B}, with log and points if need be")
    for bound in ("low", "high"):
        number = said[bound]
        if not _is_number(number):
            raise SettingError(f"{where}.{bound}", number, "a finite number")
    if not isinstance(said.get("log", False), bool):
        raise SettingError(f"{where}.log", said["log"], "true or false")
    points = said.get("points", 0)
    if not isinstance(points, int) or isinstance(points, bool) or not 0 <= points <= 10_000:
        raise SettingError(f"{where}.points", points, "a whole number")
    if not said["low"] < said["high"] or (said.get("log") and said["low"] <= 0):
        expected = "low less than high, and more than 0 with log: true"
        raise SettingError(where, said, expected)
    return Range(key, name, said["low"], said["high"], said.get("log", False), points)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _text(value: Any) -> Any:
    """Return a value as Optuna keeps it: what is no plain value, as JSON."""
    plain = value is None or isinstance(value, (bool, int, float, str))
    return value if plain else json.dumps(value)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(_text(value))


def grid(space: Sequence[Dimension]) -> List[Point]:
    """Return every combination, the last key varying fastest.

    Raises:
        UserError: a range does not say how many points it has.
    """
    points = [Point()]
    for dimension in space:
        own = list(_points(dimension))
        points = [point + one for point, one in product(points, own)]
    return points


def _points(dimension: Dimension) -> Iterator[Point]:
    """Yield a dimension's values, with those that come along."""
    if isinstance(dimension, Range):
        for value in dimension.values():
            yield Point({dimension.key: value}, {dimension.name: value})
        return
    for option in dimension.options:
        here = Point({dimension.key: option.value}, {dimension.name: _text(option.value)})
        for inner in grid(option.space):
            yield here + inner


def zipped(space: Sequence[Dimension]) -> List[Point]:
    """Return the first values of all keys together, then the second ones, and so on.

    Raises:
        UserError: the keys have different numbers of values.
    """
    columns = [list(_points(dimension)) for dimension in space]
    lengths = {dimension.key: len(column) for dimension, column in zip(space, columns)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        raise UserError(f"space: zip takes as many values of each key: {counts}")
    return [sum(together, Point()) for together in zip(*columns)]


def suggest(space: Sequence[Dimension], trial: Trial) -> Values:
    """Return the values that Optuna chooses for a trial."""
    values: Values = {}
    for dimension in space:
        if isinstance(dimension, Range):
            values[dimension.key] = dimension.suggest(trial)
        else:
            option = dimension.suggest(trial)
            values[dimension.key] = option.value
            values.update(suggest(option.space, trial))
    return values


def examples(space: Sequence[Dimension]) -> Iterator[Tuple[str, Any]]:
    """Yield every key with each value that a list names for it, and with the bounds of ranges."""
    for dimension in space:
        if isinstance(dimension, Range):
            yield from ((dimension.key, bound) for bound in (dimension.low, dimension.high))
            continue
        for option in dimension.options:
            yield dimension.key, option.value
            yield from examples(option.space)


def varied(space: Sequence[Dimension]) -> List[str]:
    """Return the keys that say which run is meant, in order: all that have several values."""
    keys: List[str] = []
    for dimension in space:
        if isinstance(dimension, Range) or len(dimension.options) > 1:
            keys.append(dimension.key)
        if isinstance(dimension, Choice):
            keys += [key for option in dimension.options for key in varied(option.space)]
    return list(dict.fromkeys(keys))
