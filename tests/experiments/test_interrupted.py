"""A sweep that is killed and typed again: no run is lost or trained twice; the same bits."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest
from helpers.places import BIN
from helpers.sweeps import GRID, same_bits, write_sweep

from caffe_pysgd.experiments.runner import Runner
from caffe_pysgd.experiments.study import open_study, runs_of
from caffe_pysgd.experiments.sweep_file import read_sweep

LONG = {"max_iter": 1500, "snapshot": 100, "test_interval": 500, "base_lr": 1e-4}


def start(source: Path, jobs: int = 2) -> subprocess.Popen:
    with open(source.parent / "said.txt", "a") as said:
        return subprocess.Popen(
            [str(BIN / "caffe-pysgd"), "sweep", str(source), "--jobs", str(jobs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def trainings(folder: Path) -> List[int]:
    """Return the processes that train a run in a folder of ours."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(process / "cwd")
        except OSError:
            continue
        trains = any(word in (b"train", b"solve") for word in words)
        if here == str(folder) and trains:
            found.append(int(process.name))
    return found


def wait_for(condition: Callable[[], Any], process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, "the sweep ended too early"
        time.sleep(0.02)


def snapshots(directory: Path) -> int:
    return len(list(directory.glob("runs/*/snapshots/*.solverstate")))


def kill_three_times(workdir: Path, source: Path, directory: Path, rng: random.Random) -> None:
    """Kill the sweep, a run of it, and everything; each time once there is more to go on from."""
    for what in ("sweep", "run", "everything"):
        sweep, before = start(source), snapshots(directory)
        wait_for(lambda before=before: snapshots(directory) > before, sweep)
        time.sleep(rng.uniform(0, 0.5))
        runs = trainings(workdir)
        if what == "run" and runs:
            os.kill(rng.choice(runs), signal.SIGKILL)
            time.sleep(rng.uniform(0, 2))
        if what == "everything":
            for run in runs:
                os.kill(run, signal.SIGKILL)
        sweep.kill()
        sweep.wait()
        for _ in range(200):  # its runs end with it
            if not trainings(workdir):
                break
            time.sleep(0.02)
        assert not trainings(workdir)


def compare_with_uninterrupted(workdir: Path, source: Path, count: int) -> None:
    """Type it again; hold its runs against those of a sweep that nobody killed."""
    directory = workdir / "out"
    assert start(source).wait(timeout=1500) == 0, (workdir / "said.txt").read_text()
    said = (workdir / "said.txt").read_text()
    finished = [line for line in said.splitlines() if ": finished: " in line]
    assert len(finished) == len(set(finished)), said  # a kill may come between an end and its line
    results = [json.loads(path.read_text()) for path in directory.glob("runs/*/result.json")]
    assert [result["state"] for result in results] == ["finished"] * count
    logs = [path.read_text(errors="replace") for path in directory.glob("runs/*/caffe.log")]
    assert any("caffe-pysgd: resuming from" in log for log in logs)
    shutil.move(str(directory), str(workdir / "killed"))
    assert start(source).wait(timeout=1500) == 0
    runs = sorted(directory.glob("runs/*"))
    assert len(runs) == count
    for run in runs:
        assert same_bits(run, workdir / "killed/runs" / run.name), run.name


def test_killed_three_times_it_ends_with_the_bits_of_one_that_was_not(workdir: Path) -> None:
    source = write_sweep(workdir, GRID.replace("0.001, 0.0005", "0.0001, 0.00005"), **LONG)
    kill_three_times(workdir, source, workdir / "out", random.Random(4))
    compare_with_uninterrupted(workdir, source, 4)


def test_a_run_that_is_said_to_have_finished_is_stored_as_that(workdir: Path) -> None:
    sweep = read_sweep(write_sweep(workdir, GRID.replace("0.001, 0.0005", "0.001"), max_iter=20))
    study = open_study(sweep)
    states = {}

    def say(line: str) -> None:
        name, _, what = line.partition(": finished")
        if what:
            states[name] = runs_of(study)[name].state.name

    runner = Runner(sweep, study, 2, say)
    runner.start()
    runner.join()
    assert list(states.values()) == ["COMPLETE", "COMPLETE"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twelve_runs_of_lenet_killed_three_times(mnist: Path, workdir: Path) -> None:
    shutil.copytree(mnist / "examples", workdir / "examples")
    text = (workdir / "examples/mnist/sweep.yaml").read_text()
    source = workdir / "sweep.yaml"
    text = text.replace("base: ", "base: examples/mnist/")
    source.write_text(text.replace("../../runs/sweep", "out"))
    kill_three_times(workdir, source, workdir / "out", random.Random(8))
    compare_with_uninterrupted(workdir, source, 12)


def test_ctrl_c_loses_no_run(workdir: Path) -> None:
    source = write_sweep(workdir, GRID, **{**LONG, "max_iter": 4000})
    sweep = start(source)
    wait_for(lambda: snapshots(workdir / "out"), sweep)
    running = trainings(workdir)
    for run in running:  # so that none ends before Ctrl-C
        os.kill(run, signal.SIGSTOP)
    status = subprocess.run(
        [str(BIN / "caffe-pysgd"), "sweep", "status", "out"], capture_output=True, text=True
    )
    assert re.search(r"^ *0.0\d* +0.\d +7 +[1-9][\d,]* .* running", status.stdout, re.MULTILINE)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(timeout=60) == 130
    assert not trainings(workdir)
    assert "interrupted; the same command goes on" in (workdir / "said.txt").read_text()
    assert start(source).wait(timeout=300) == 0
    said = (workdir / "said.txt").read_text()
    finished = [line for line in said.splitlines() if ": finished: " in line]
    assert len(finished) == len(set(finished)) == 4, said


def test_several_processes_share_a_sweep(workdir: Path) -> None:
    source = write_sweep(workdir, GRID, max_iter=200)
    sweeps = [start(source, jobs=1) for _ in range(3)]
    assert [sweep.wait(timeout=300) for sweep in sweeps] == [0, 0, 0]
    said = (workdir / "said.txt").read_text()
    for what in (": started", ": finished: "):
        lines = [line for line in said.splitlines() if what in line]
        assert len(lines) == len(set(lines)) == 4, said
