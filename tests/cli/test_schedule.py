"""``caffe-pysgd schedule``: the rates that the update will have, before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from helpers.failures import failure
from helpers.nets import SMALL, write_solver
from helpers.recorded_runs import rows

from caffe_pysgd.cli.schedule import chart
from caffe_pysgd.run.rates import rates
from caffe_pysgd.run.resolve import resolve

TEXT = """
solver: solver.prototxt
run_dir: d
audit: {every: 1}
update:
  lr_policy: multistep
  stepvalue: [3, 3, 9]
  gamma: 0.5
  warmup_iter: 4
  params:
    - {match: "conv/*", freeze_until: 2, freeze_from: 10}
    - {match: "out/*", base_lr: 0.3, lr_policy: cosine}
"""


@pytest.fixture
def source(workdir: Path) -> Path:
    write_solver(workdir, SMALL, max_iter=14, base_lr=0.01)
    path = workdir / "run.yaml"
    path.write_text(TEXT)
    return path


def test_the_rates_are_those_of_the_update(cli: Callable[..., Any], source: Path) -> None:
    found = rates(resolve(source), range(14))
    assert cli("solve", source).returncode == 0
    for group in found:
        for name in group.names:
            sql = (
                "SELECT iteration, local_rate FROM updates u JOIN parameters p"
                " USING (session, parameter) WHERE p.name = ?"
            )
            recorded = dict(rows(Path("d/audit.sqlite"), sql, name))
            expected = {i: float(rate) for i, rate in enumerate(group.rates) if i in recorded}
            assert recorded == expected and len(recorded) >= 8
            frozen = set(range(14)) - set(recorded)
            assert all(group.rates[i] == 0 for i in frozen)
    assert sorted(name for group in found for name in group.names) == [
        "conv/0", "conv/1", "hidden/0", "hidden/1", "out/0"
    ]  # fmt: skip


def test_any_iteration_has_the_rate_of_a_run_from_0_on(source: Path) -> None:
    run = resolve(source)
    for whole, part in zip(rates(run, range(14)), rates(run, [2, 5, 13])):
        assert (whole.rates[[2, 5, 13]] == part.rates).all()


def test_it_shows_and_draws(cli: Callable[..., Any], source: Path) -> None:
    shown = cli("schedule", source, "--iterations", "2:11", "-o", "rates.svg")
    assert shown.returncode == 0, shown.stderr
    assert "E: out/0 (cosine)" in shown.stdout
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["2", "0.005", "0.01", "0.0025", "0.005", "0.142573"] in lines
    assert "█" in shown.stdout
    assert b"<svg" in Path("rates.svg").read_bytes()[:500]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--iterations", "9:2"], "--iterations: got '9:2'; expected A:B, the first"),
        (["--iterations", "9"], "--iterations: got '9'; expected A:B, two iterations"),
        (["-o", "rates.txt"], "--output: got 'rates.txt'; expected a name that ends in"),
        (["--set", "update={max_iter: 0}"], "max_iter is 0: there is no update"),
        (
            ["--set", "update={lr_policy: plateau, plateau_winsize: [2], gamma: 0.5}"],
            "run.yaml: the rate of lr_policy 'plateau' follows the loss",
        ),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(
    cli: Callable[..., Any], source: Path, arguments: Any, said: str
) -> None:
    assert said in failure(cli("schedule", source, *arguments))


def test_a_chart_reaches_from_0_to_the_largest() -> None:
    lines = chart(np.array([0, 0.5, 1], np.float32))
    assert [line[2] for line in lines] == ["█"] * 6
    assert [line[1] for line in lines] == [" "] * 3 + ["█"] * 3
    assert [line[0] for line in lines] == [" "] * 6
    assert chart(np.zeros(2, np.float32))[0] == "  "
