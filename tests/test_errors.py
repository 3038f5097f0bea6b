"""A setting that is not allowed: one short line, whatever the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import caffe_pysgd
from caffe_pysgd.errors import SettingError, UserError, one_of


@pytest.mark.parametrize(
    ("got", "shown"),
    [("adm", "'adm'"), (0, "0"), (np.float32(0.1), "0.1"), (None, "None"), ([1, "a"], "[1, 'a']")],
)
def test_it_names_field_value_and_what_is_expected(got: Any, shown: str) -> None:
    error = SettingError("rule", got, "one of sgd, adam")
    assert str(error) == f"rule: got {shown}; expected one of sgd, adam"
    assert isinstance(error, UserError) and isinstance(error, ValueError)
    assert (error.field, error.got, error.expected) == ("rule", got, "one of sgd, adam")


def test_the_path_of_the_mistake_grows_from_inside() -> None:
    inner = SettingError("lr_mult", -1, "0 or more")
    outer = inner.at("run.yaml", "update.params[2]")
    assert str(outer) == "run.yaml: update.params[2].lr_mult: got -1; expected 0 or more"
    problem = SettingError("rule", "m:R", problem="importing m failed").at("run.yaml", "update")
    assert str(problem) == "run.yaml: update.rule: got 'm:R'; importing m failed"


def test_a_value_of_any_size_is_shown_in_a_few_words() -> None:
    bomb: Any = ["x"] * 9
    for _ in range(8):
        bomb = [bomb] * 9
    for value in (bomb, "x" * 100_000, {n: n for n in range(10_000)}, b"y" * 10_000):
        assert len(str(SettingError("key", value, "a number"))) < 200


def test_a_likely_misspelling_is_suggested() -> None:
    assert one_of(["sgd", "adam"], "adm") == "one of sgd, adam; did you mean 'adam'?"
    assert one_of(["sgd", "adam"], "zzz") == "one of sgd, adam"


def test_a_rule_of_ones_own_may_raise_it() -> None:
    assert caffe_pysgd.SettingError is SettingError
