"""Rules and policies of the user's own, groups, and resuming by name, in stock ``caffe train``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from helpers.failures import failure_in_log, refusal
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, write_solver

from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock.snapshots import read_model

CONSTANT = SMALL.replace('{ type: "gaussian" std: 1 }', "{ value: 0.5 }")

MY_RULES = """
import numpy as np
import caffe_pysgd

class Heavy(caffe_pysgd.UpdateRule):
    slots = ("slow", "fast")

    def update(self, p):
        slow, fast = p.state["slow"], p.state["fast"]
        fast += np.float32(0.5) * (p.gradient - fast)
        slow += np.float32(0.1) * (fast - slow)
        return p.rate * slow

class Broken(caffe_pysgd.UpdateRule):
    def update(self, p):
        return p.gradient[1:] if p.iteration == 3 else p.rate * p.gradient

def sawtooth(h, iteration):
    return h.base_lr * (1 + iteration % 3)
"""


def write_run(workdir: Path, update: str, **fields: Any) -> Path:
    write_solver(workdir, SMALL, **fields)
    (workdir / "mine.py").write_text(MY_RULES)
    source = workdir / "run.yaml"
    snapshots = "{prefix: solver, overwrite: true}"
    source.write_text(
        f"solver: solver.prototxt\nrun_dir: run\nsnapshots: {snapshots}\nupdate: {{{update}}}\n"
    )
    return source


def weights(path: Path) -> np.ndarray:
    model = read_model(path)
    return np.concatenate([blob for layer in ("conv", "hidden", "out") for blob in model[layer]])


def test_a_rule_of_ones_own_trains_and_resumes_with_the_same_bits(
    workdir: Path, cli: Callable
) -> None:
    source = write_run(
        workdir, 'rule: "mine:Heavy", lr_policy: "mine:sawtooth"', snapshot=10, display=5
    )
    write_solver(workdir, CONSTANT, snapshot=10, display=5)
    whole = cli("train", source)
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert "rule mine:Heavy, 5 parameters, 1514 values" in whole.stderr
    assert "pysgd_rate = 0.03" in whole.stderr
    state = read_model(workdir / "solver_iter_20.caffemodel")
    (hook,) = (name for name in state if name.startswith("pysgd_mine-Heavy_"))
    assert len(state[hook]) == 2 + 2 * 5
    first = weights(workdir / "solver_iter_20.caffemodel")
    (workdir / "solver_iter_20.caffemodel").unlink()
    resumed = cli("train", source, "--snapshot", "solver_iter_10.solverstate")
    assert "state resumed at iteration 10" in resumed.stderr
    # The data are the same at every iteration, so that a resumed run can equal the whole run.
    assert weights(workdir / "solver_iter_20.caffemodel").tobytes() == first.tobytes()


def test_a_broken_rule_is_one_line_naming_rule_parameter_and_iteration(
    workdir: Path, cli: Callable
) -> None:
    process = cli("train", write_run(workdir, 'rule: "mine:Broken"'))
    assert failure_in_log(process) == (
        "rule mine:Broken, parameter conv/0, iteration 3: update() returned shape (89,); "
        "expected (90,)"
    )


@pytest.mark.parametrize(
    "rule, complaint",
    [
        ("mine:Nothing", "update.rule: got 'mine:Nothing'; mine has no 'Nothing'"),
        (
            "mine:sawtooth",
            "update.rule: got 'mine:sawtooth'; expected a subclass of caffe_pysgd.UpdateRule",
        ),
        (
            "nowhere:Rule",
            "update.rule: got 'nowhere:Rule'; importing nowhere failed: ModuleNotFoundError",
        ),
        ("adm", "update.rule: got 'adm'; expected one of sgd, nesterov"),
    ],
)
def test_a_rule_that_is_not_there_is_refused_before_caffe_starts(
    workdir: Path, rule: str, complaint: str
) -> None:
    said = refusal(resolve, write_run(workdir, f'rule: "{rule}"'))
    assert complaint in said and said.startswith(str(workdir))


def test_groups_give_parameters_rules_and_hyperparameters_of_their_own(
    workdir: Path, cli: Callable
) -> None:
    groups = """params: [
      {match: "conv/*", rule: adam, base_lr: 0.001, momentum: 0.5},
      {match: "hidden/1", freeze_from: 4},
      {match: "hidden/*", freeze_until: 6, lr_mult: 3},
      {match: "*", rule: "mine:Heavy"}]"""
    source = write_run(workdir, groups, snapshot=1, max_iter=8)
    assert cli("train", source).returncode == 0
    models = [read_model(workdir / f"solver_iter_{i}.caffemodel") for i in range(1, 9)]
    moved = {
        (layer, index): [
            i + 2
            for i, (before, after) in enumerate(zip(models, models[1:]))
            if (before[layer][index] != after[layer][index]).any()
        ]
        for layer, index in (("conv", 0), ("hidden", 0), ("hidden", 1), ("out", 0))
    }
    assert moved[("conv", 0)] == moved[("out", 0)] == [2, 3, 4, 5, 6, 7, 8]
    assert moved[("hidden", 0)] == [7, 8]
    assert moved[("hidden", 1)] == [2, 3, 4]
    names = resolve(source).settings().state_names()
    assert names == [
        "m of conv/0", "m of conv/1", "history of hidden/0", "history of hidden/1", "slow of out/0",
        "v of conv/0", "v of conv/1", "fast of out/0",
    ]  # fmt: skip


def test_resuming_with_another_rule_is_refused_by_name(workdir: Path, cli: Callable) -> None:
    assert cli("train", write_run(workdir, "rule: sgd", momentum=0)).returncode == 0
    for rule in ("nesterov", "adagrad", "adam", "mine:Heavy"):
        source = write_run(workdir, f'rule: "{rule}"', momentum=0)
        process = cli("train", source, "--snapshot", "solver_iter_20.solverstate")
        assert process.returncode == 2
        (line,) = process.stderr.splitlines()
        assert "holds the state of rule 'sgd'" in line and f"this run has rule '{rule}'" in line
        # Typed by hand, Caffe finds no state of that name, and the hook stops before training.
        inject = cli("inject", source, "--iterations", 30)
        by_hand = cli_by_hand(inject.stdout, "--snapshot=solver_iter_20.solverstate", workdir)
        assert by_hand.returncode == 2
        assert "holds no state of the update pysgd_" in by_hand.stderr


def cli_by_hand(line: str, flag: str, workdir: Path) -> Any:
    return subprocess.run(
        f"{line.strip()} {flag}", shell=True, cwd=workdir, capture_output=True, text=True
    )


@pytest.mark.parametrize("beyond", ['rule: "adamw"', "lr_policy: cosine", "warmup_iter: 3"])
def test_what_caffe_has_not_cannot_be_verified_against_it(
    workdir: Path, cli: Callable, beyond: str
) -> None:
    process = cli("verify", write_run(workdir, beyond))
    assert process.returncode == 2
    assert "there is no stock run to compare with" in process.stderr
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_groups_leave_the_running_statistics_of_batchnorm_alone(
    workdir: Path, cli: Callable, rule: str
) -> None:
    groups = 'params: [{match: "*", lr_mult: 2, decay_mult: 3}]'
    source = write_run(workdir, f"rule: {rule}, {groups}")
    write_solver(workdir, NETS["normalized"], weight_decay=0.01)
    process = cli("verify", source)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_verify_finds_no_difference_for_any_rule_of_caffe(
    workdir: Path, cli: Callable, rule: str
) -> None:
    """The rule comes from the YAML; the stock run then has the solver type of that name."""
    fields = RULES_OF_CAFFE[rule]
    process = cli("verify", write_run(workdir, f"rule: {rule.lower()}", **fields))
    assert process.returncode == 0, process.stderr
    last = process.stdout.splitlines()[-1]
    values = 1514 * (3 if rule in ("AdaDelta", "Adam") else 2)
    assert last == f"verify: 0 of {values} values differ, max 0 ulp, after 20 iterations"
