"""Loggers: what they are told while a run trains, in every host, and across a resume."""

from __future__ import annotations

import csv
import math
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
from helpers.failures import failure, failure_in_log
from helpers.hosts import train
from helpers.nets import LOSSES, SMALL, write_solver
from helpers.places import BIN
from helpers.recorded_runs import TESTED

from caffe_pysgd.audit.store import Store

Cli = Callable[..., subprocess.CompletedProcess]
Logged = Dict[Tuple[int, str], float]

OWN = """
import caffe_pysgd

class Lines(caffe_pysgd.Logger):
    def begin_run(self, iteration):
        self.file = open(self.folder / "lines.txt", "a")
        print("begin", iteration, self.settings.rule, file=self.file)
    def log(self, iteration, values):
        print(iteration, *values, file=self.file, flush=True)
    def end_run(self):
        print("end", file=self.file, flush=True)
"""


def write_run(workdir: Path, loggers: str, net: str = LOSSES, **fields: Any) -> Path:
    settings = {"max_iter": 8, "average_loss": 2, **TESTED, **fields}
    write_solver(workdir, net, "run", snapshot_prefix="s", **settings)
    path = workdir / "run.yaml"
    path.write_text(
        f"solver: run.prototxt\nrun_dir: run\nloggers: {loggers}\nlog_every: 2\n"
        "audit: {every: 1}\n"
    )
    return path


def metrics(folder: Path) -> Logged:
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(int(row["iteration"]), row["name"]): float(row["value"]) for row in rows}


def recorded(folder: Path) -> Logged:
    """Return what the audit has of the same numbers."""
    found: Logged = {}
    with Store(folder) as store:
        for column, name in (("loss", "loss/batch"), ("smoothed_loss", "loss/averaged")):
            for i, value in zip(*store.series(column)):
                found[int(i), name] = float(value)
        for i, value in zip(*store.series("rate")):
            found[int(i), "run/rate"] = float(value)
        found = {(i, name): value for (i, name), value in found.items() if i % 2 == 0}
        for (net, output), (iterations, values) in store.tests().items():
            for i, value in zip(iterations, values):
                found[int(i), f"test/{net}/{output}"] = float(value)
    return found


def event_files(folder: Path) -> Logged:
    """Return what TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return {
        (event.step, tag): event.value
        for tag in accumulator.Tags()["scalars"]
        for event in accumulator.Scalars(tag)
    }


def same(one: Logged, other: Logged) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[key], other[key], rel_tol=1e-6) for key in one
    )


@pytest.mark.parametrize("host", ["in-net", "hook", "solver"])
def test_every_host_logs_what_the_audit_records(cli: Cli, workdir: Path, host: str) -> None:
    assert not train(cli, write_run(workdir, "[tensorboard, csv]"), host)
    expected = recorded(workdir / "run")
    assert metrics(workdir / "run") == expected
    assert {name for _, name in expected} >= {"loss/batch", "loss/averaged", "run/rate"}
    assert any(name.startswith("test/0/") for _, name in expected)
    assert same(event_files(workdir / "run"), expected)


def test_after_a_resume_they_go_on(cli: Cli, workdir: Path) -> None:
    source = write_run(workdir, "[tensorboard, csv, 'own:Lines']", SMALL)
    (workdir / "own.py").write_text(OWN)
    assert cli("train", source).returncode == 0
    resumed = cli("train", source, "--snapshot", "run/snapshots/s_iter_4.solverstate")
    assert resumed.returncode == 0, resumed.stderr
    lines = (workdir / "run/lines.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith(("begin", "end"))] == [
        "begin 0 sgd", "end", "begin 4 sgd", "end"
    ]  # fmt: skip
    expected = recorded(workdir / "run")
    assert metrics(workdir / "run") == expected
    assert same(event_files(workdir / "run"), expected)


def test_tensorboard_can_follow(workdir: Path) -> None:
    source = write_run(workdir, "[tensorboard]", SMALL, max_iter=10**6, snapshot=0)
    process = subprocess.Popen(
        [str(BIN / "caffe-pysgd"), "train", str(source)], stderr=subprocess.DEVNULL
    )
    seen: List[int] = []
    try:
        until = time.monotonic() + 100
        while len(seen) < 3 and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.2)
            files = list((workdir / "run").glob("tensorboard/*"))
            steps = {step for step, _ in event_files(workdir / "run")} if files else set()
            if steps and (not seen or max(steps) > seen[-1]):
                seen.append(max(steps))
    finally:
        process.kill()
        process.wait()
    assert len(seen) == 3 and len(list((workdir / "run").glob("tensorboard/*"))) == 1


def test_mlflow_keeps_one_run(cli: Cli, workdir: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    source = write_run(workdir, "[mlflow, csv]", SMALL)
    assert cli("solve", source).returncode == 0
    assert cli("solve", source, "--snapshot", "run/snapshots/s_iter_4.solverstate").returncode == 0
    client = mlflow.tracking.MlflowClient((workdir / "run/mlruns").as_uri())
    run_id = (workdir / "run/mlflow-run").read_text().strip()
    run = client.get_run(run_id)
    assert run.data.params["rule"] == "sgd" and run.data.params["momentum"] == "0.9"
    assert run.info.status == "FINISHED"
    for name in ("loss/batch", "run/rate"):
        history = {m.step: m.value for m in client.get_metric_history(run_id, name)}
        assert history == {i: v for (i, n), v in metrics(workdir / "run").items() if n == name}


def test_a_logger_that_is_none_is_one_line(cli: Cli, workdir: Path) -> None:
    said = failure(cli("train", write_run(workdir, "[tensorbord]")))
    assert said == (
        f"{workdir}/run.yaml: loggers[0]: got 'tensorbord'; expected one of tensorboard, csv, "
        "mlflow or module:Class; did you mean 'tensorboard'?"
    )
    (workdir / "own.py").write_text("class Lines: pass\n")
    said = failure_in_log(cli("train", write_run(workdir, "['own:Lines']", SMALL)))
    assert said == "loggers: got 'own:Lines'; expected a subclass of caffe_pysgd.Logger"
