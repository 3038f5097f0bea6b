"""The YAML of a sweep: what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from helpers.failures import failure, refusal
from helpers.programs import run_python
from helpers.sweeps import GRID, write_sweep

from caffe_pysgd.experiments.sweep_file import read_sweep, short_names


def refused(workdir: Path, text: str, **fields: Any) -> str:
    return refusal(read_sweep, write_sweep(workdir, text, **fields))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("update.momentun: [1]", "space: update.momentun: unknown key; did you mean 'momentum'?"),
        ("updat.momentum: [1]", "space: updat: unknown key; did you mean 'update'?"),
        ("update.momentum: [a]", "space: update.momentum: got 'a'; expected a valid number"),
        (
            "solver.random_sed: [1]",
            "space: solver_overrides.random_sed: SolverParameter has no field 'random_sed'; did",
        ),
        ("update.rule: [sgdd]", "space: update.rule: got 'sgdd'; expected one of sgd, "),
        (
            "update.rule: [{value: sgd, with: {update.momentun: [1]}}]",
            "space: update.momentun: unknown key",
        ),
        ("solver.random_seed: [1, 2]", "space: solver.random_seed: is varied by 'seeds'"),
        ("run_dir: [a, b]", "space: run_dir: each run has its own"),
        ("host: [in-net, gpu]", "space: host: got 'gpu'; expected one of in-net, solve, native"),
        ("update..x: [1]", "space.update..x: expected a key, such as update.base_lr"),
        ("update.momentum: 3", "space.update.momentum: got 3; expected a list of values"),
    ],
)
def test_a_space_that_cannot_be_is_one_line(workdir: Path, space: str, said: str) -> None:
    text = f"base: base.yaml\nspace: {{{space}}}\nobjective: {{score: loss}}"
    assert said in refused(workdir, text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("base.yaml", "no.yaml", "base: got 'no.yaml'; expected a YAML or a solver file"),
        ("objective", "objectiv", "objectiv: unknown key; did you mean 'objective'?"),
        ("take: last", "take: first", "objective.take: got 'first'; expected 'best', 'last' or"),
        ("score: loss, ", "", "objective: expected either score, an output of the test net, or"),
        ("score: loss", "score: loss, loss: raw", "objective: expected either score"),
        ("sweep_dir: out", "method: tpe", "budget: tpe goes on for ever; say how many runs, or"),
        ("sweep_dir: out", "seeds: 0", "seeds"),
        ("sweep_dir: out", "budget: {runs: 0}", "budget.runs: got 0; expected greater than"),
        ("sweep_dir: out", "pruner: {kind: mean}", "pruner.kind: got 'mean'; expected 'median'"),
    ],
)
def test_a_sweep_that_says_something_else_is_one_line(
    workdir: Path, old: str, new: str, said: str
) -> None:
    assert old in GRID
    assert said in refused(workdir, GRID.replace(old, new))


def test_a_score_needs_a_test(workdir: Path) -> None:
    said = refused(workdir, GRID, test_interval=None, test_iter=None)
    assert "objective.score: the base run is never tested" in said


def test_nothing_is_made_for_a_sweep_that_is_refused(
    cli: Callable[..., Any], workdir: Path
) -> None:
    source = write_sweep(workdir, GRID.replace("momentum", "momentun"))
    said = failure(cli("sweep", source))
    assert said.endswith("space: update.momentun: unknown key; did you mean 'momentum'?")
    assert not (workdir / "out").exists()
    assert "cannot be read" in failure(cli("sweep", "no.yaml"))
    assert "no sweep was begun here" in failure(cli("sweep", "best", "."))


def test_a_run_is_named_by_what_it_differs_by(workdir: Path) -> None:
    sweep = read_sweep(write_sweep(workdir, GRID + "seeds: [3, 4]\n"))
    values = {"update.base_lr": 0.001, "update.momentum": 0.5, "solver.random_seed": 3}
    assert sweep.run_name(values) == "base_lr=0.001,momentum=0.5,seed=3"
    assert sweep.run_name(values, 7) == "0007-base_lr=0.001,momentum=0.5,seed=3"
    long = sweep.run_name({**values, "update.momentum": "x/" * 200})
    assert len(long) < 200 and "/" not in long
    assert short_names(["update.rule", "update.params[0].rule"]) == {
        "update.rule": "update.rule",
        "update.params[0].rule": "update.params[0].rule",
    }


def test_the_goal_follows_from_the_name(workdir: Path) -> None:
    for objective, maximized in (
        ("{score: accuracy}", True),
        ("{score: my_loss}", False),
        ("{score: error, goal: max}", True),
        ("{loss: smoothed}", False),
    ):
        text = GRID.replace("{score: loss, take: last}", objective)
        sweep = read_sweep(write_sweep(workdir, text))
        assert sweep.options.objective.maximized is maximized


def test_without_optuna_it_says_what_to_install(workdir: Path) -> None:
    program = (
        "import sys; sys.modules['optuna'] = None; sys.argv = ['x', 'sweep', 'sweep.yaml']; "
        "from caffe_pysgd.cli.main import main; main()"
    )
    write_sweep(workdir, GRID)
    assert "sweep needs Optuna" in failure(run_python(program))
