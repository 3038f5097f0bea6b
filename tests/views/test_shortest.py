"""Real numbers as text: a column at once gives what ``repr`` gives of each."""

from __future__ import annotations

from typing import List

import numpy as np
import pytest

from caffe_pysgd.views.export.shortest import NOTHING, shortest

DRAW = np.random.RandomState(1)
POWERS = np.concatenate([10.0 ** np.arange(-45, 45), 2.0 ** np.arange(-1074, 1023)])
NUMBERS = {
    "any bits": np.frombuffer(DRAW.bytes(8 * 50_000), np.float64),
    "any size": np.exp(DRAW.uniform(-95, 95, 50_000)) * DRAW.choice([-1.0, 1.0], 50_000),
    "from float32": np.exp(DRAW.uniform(-30, 30, 50_000)).astype(np.float32).astype(np.float64),
    "few digits": DRAW.randint(0, 10**6, 50_000) / 10.0 ** DRAW.randint(0, 14, 50_000),
    "whole": np.floor(10.0 ** DRAW.uniform(0, 19, 50_000)),
    "powers": POWERS,
    "beside powers": np.concatenate([np.nextafter(POWERS, 0), np.nextafter(POWERS, np.inf)]),
    "others": np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e23, 9007199254740993.0, 1e-4]),
}


def texts(values: np.ndarray) -> List[str]:
    return [row.tobytes().replace(bytes([NOTHING]), b"").decode() for row in shortest(values)]


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_number_is_written_as_repr_writes_it(kind: str) -> None:
    with np.errstate(all="raise"):
        assert texts(NUMBERS[kind]) == [repr(value) for value in NUMBERS[kind].tolist()]


def test_where_there_is_no_extended_precision_repr_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "longdouble", np.float64)
    values = NUMBERS["from float32"][:100]
    assert texts(values) == [repr(value) for value in values.tolist()]
