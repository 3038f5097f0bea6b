"""What a sweep varies: grids, zips, conditions, and what is no space."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.failures import refusal

from caffe_pysgd.experiments.space import grid, parse_space, suggest, varied, zipped

SPACE = {
    "update.rule": ["sgd", {"value": "adam", "with": {"update.momentum2": [0.9, 0.99]}}],
    "update.base_lr": {"low": 0.001, "high": 0.1, "log": True, "points": 3},
}


def test_a_grid_has_every_combination_and_what_comes_along() -> None:
    points = [point.values for point in grid(parse_space(SPACE))]
    assert points == [
        {"update.rule": "sgd", "update.base_lr": rate} for rate in (0.001, 0.01, 0.1)
    ] + [
        {"update.rule": "adam", "update.momentum2": beta, "update.base_lr": rate}
        for beta in (0.9, 0.99)
        for rate in (0.001, 0.01, 0.1)
    ]
    assert varied(parse_space(SPACE)) == ["update.rule", "update.momentum2", "update.base_lr"]


def test_a_key_with_one_value_tells_no_runs_apart() -> None:
    space = {"a": [1], "b": [1, {"value": 2, "with": {"c": 3}}]}
    assert varied(parse_space(space)) == ["b"]
    assert [point.values for point in grid(parse_space(space))] == [
        {"a": 1, "b": 1},
        {"a": 1, "b": 2, "c": 3},
    ]


def test_whole_numbers_stay_whole() -> None:
    (dimension,) = parse_space({"update.stepsize": {"low": 1, "high": 9, "points": 3}})
    values = dimension.values()  # type: ignore[union-attr]
    assert values == [1, 5, 9] and all(isinstance(value, int) for value in values)


def test_a_zip_goes_through_all_keys_together() -> None:
    points = zipped(parse_space({"a": [1, 2], "b": ["x", [3, 4]]}))
    assert [point.values for point in points] == [{"a": 1, "b": "x"}, {"a": 2, "b": [3, 4]}]
    assert "a has 2, b has 1" in refusal(zipped, parse_space({"a": [1, 2], "b": [1]}))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (3, "space.k: got 3; expected a list of values, or a range"),
        ([], "space.k: got []; expected a list of values"),
        ([1, 1], "space.k: got [1, 1]; expected values that differ"),
        ({"low": 1}, "space.k: got {'low': 1}; expected a range {low: A, high: B}"),
        ({"low": 2, "high": 1}, "expected low less than high"),
        ({"low": 0, "high": 1, "log": True}, "more than 0 with log: true"),
        ({"low": 0, "high": 1, "lgo": True}, "expected a range {low: A, high: B}"),
        ({"low": "a", "high": 1}, "space.k.low: got 'a'; expected a finite number"),
        ({"low": 0, "high": 1, "points": -1}, "space.k.points: got -1; expected a whole number"),
        ([{"value": 1, "wiht": {}}], "expected {value: V, with: {KEY: VALUES, ...}}"),
    ],
)
def test_what_is_no_space_is_refused(said: Any, message: str) -> None:
    assert message in refusal(parse_space, {"k": said})


def test_a_range_in_a_grid_says_how_many_points() -> None:
    space = parse_space({"k": {"low": 0, "high": 1}})
    assert "space.k: a grid of a range needs 'points'" in refusal(grid, space)


def test_optuna_chooses_within_the_space() -> None:
    import optuna

    space = parse_space({**SPACE, "n": {"low": 1, "high": 4}, "l": [[1, 2], None, True]})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    chosen = [suggest(space, study.ask()) for _ in range(40)]
    assert {values["update.rule"] for values in chosen} == {"sgd", "adam"}
    for values in chosen:
        assert ("update.momentum2" in values) is (values["update.rule"] == "adam")
        assert 0.001 <= values["update.base_lr"] <= 0.1 and values["n"] in (1, 2, 3, 4)
    assert [1, 2] in [values["l"] for values in chosen]
