"""How solvers, parameters, verdicts and runs show themselves: a line, and a table in a notebook."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import caffe
import numpy as np
import pytest
from helpers.nets import write_solver

import caffe_pysgd
from caffe_pysgd.run.resolve import resolve


def test_the_package_lists_what_it_offers() -> None:
    assert {"SGDSolver", "open_run", "take_over"} <= set(dir(caffe_pysgd))
    assert "Any" not in dir(caffe_pysgd)
    for name in dir(caffe_pysgd):
        assert getattr(caffe_pysgd, name) is not None


@pytest.mark.parametrize("make", [caffe_pysgd.SGDSolver, caffe_pysgd.take_over])
def test_a_solver_is_shown_in_a_line(make: Any, workdir: Path) -> None:
    solver = make(str(write_solver(workdir, max_iter=20)))
    solver.step(2)
    line = repr(solver)
    assert re.fullmatch(r"<(SGDSolver|TakenOverSolver) \S+: iteration 2 of 20, .*values\)>", line)
    assert "rule sgd" in line and f"{len(solver.updater.parameters)} parameters" in line
    rows = solver._repr_html_()
    assert all(f"<td>{p.name}</td>" in rows for p in solver.updater.parameters)


def test_showing_a_solver_changes_nothing(workdir: Path) -> None:
    policy = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 2, 3], "random_seed": 1}
    weights = []
    for look in (lambda solver: None, lambda solver: (repr(solver), solver._repr_html_())):
        solver = caffe_pysgd.get_solver(write_solver(workdir, **policy))
        for _ in range(4):
            look(solver)
            solver.step(1)
        weights.append([p.data.tobytes() for p in solver.updater.parameters])
    assert weights[0] == weights[1]


def test_the_history_and_a_parameter_are_shown_in_a_line(workdir: Path) -> None:
    solver = caffe_pysgd.SGDSolver(write_solver(workdir))
    solver.step(1)
    history = solver.history
    assert isinstance(history, dict)
    assert re.fullmatch(r"<History of \d+ arrays: .*>", repr(history))
    first = next(iter(history))
    assert f"<td>{first}</td><td>{history[first].shape}</td>".replace("'", "&#x27;") in (
        history._repr_html_()
    )
    parameter = solver.updater.parameters[0]
    assert repr(parameter).startswith(f"<Parameter {first}: {parameter.count} values, |data| ")
    assert f"{np.linalg.norm(parameter.state['history']):.4g}" in parameter._repr_html_()


def test_a_run_and_a_verdict_are_shown_in_a_line(workdir: Path) -> None:
    source = write_solver(workdir, max_iter=20)
    assert re.fullmatch(r"<Run \S+: net \S+, rule sgd, \d+ parameters, max_iter 20>",
                        repr(resolve(source)))  # fmt: skip

    def step(solver: caffe.SGDSolver) -> None:
        solver.step(1)

    verdict = caffe_pysgd.diagnose(str(source), step=step, iterations=2)
    assert repr(verdict).startswith("<Verdict: exact: 0 of ")
    assert "\n" not in repr(verdict)
    assert f"<pre>{escape(str(verdict))}</pre>" in verdict._repr_html_()
