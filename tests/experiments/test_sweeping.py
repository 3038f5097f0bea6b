"""Whole sweeps, with the real commands: they end, they are ranked, nothing stops them."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List

import pytest
import yaml
from helpers.failures import failure
from helpers.programs import shown_on_terminal_and
from helpers.sweeps import GRID, same_bits, write_sweep

Cli = Callable[..., subprocess.CompletedProcess]


def rows(folder: str = "out") -> List[Dict[str, str]]:
    with open(Path(folder, "results.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid_is_trained_ranked_and_trained_again(cli: Cli, workdir: Path) -> None:
    source = write_sweep(workdir, GRID.replace(", 0.0005", "") + "seeds: 2\n")
    done = cli("sweep", source, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    found = rows()
    assert len(found) == 4 and {row["state"] for row in found} == {"finished"}
    means = [float(row["mean"]) for row in found]
    assert means == sorted(means) and len(set(means)) == 2
    for row in found:
        same = [float(one["value"]) for one in found if one["rank"] == row["rank"]]
        assert float(row["mean"]) == pytest.approx(sum(same) / 2)
        assert float(row["deviation"]) == pytest.approx(abs(same[0] - same[1]) / 2**0.5)
        result = json.loads(Path("out/runs", row["run"], "result.json").read_text())
        assert result["value"] == float(row["value"]) and result["seed"] == int(row["seed"])
        assert {"resolved.yaml", "manifest.json", "audit.sqlite", "caffe.log"} <= {
            path.name for path in Path("out/runs", row["run"]).iterdir()
        }
    assert "rank" in done.stdout and Path("out/index.html").exists()

    again = cli("sweep", source)  # nothing is left to do
    assert again.returncode == 0 and "started" not in again.stderr
    assert rows() == found
    status = cli("sweep", "status", "out")
    assert "4 runs: 4 finished" in status.stdout

    best = cli("sweep", "best", "out")
    assert best.returncode == 0, best.stderr
    Path("best.yaml").write_text(best.stdout)
    name = min((row for row in found if row["rank"] == "1"), key=lambda row: float(row["value"]))
    trained = cli("train", "best.yaml", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    assert trained.returncode == 0, trained.stderr
    assert same_bits(Path("out/runs", name["run"]), Path("runs/sweep-best"))


def test_a_run_that_fails_stops_no_other(cli: Cli, workdir: Path) -> None:
    text = """
base: base.yaml
sweep_dir: out
space:
  update.rule: [sgd, adagrad]
  update.base_lr: [0.001, 1.0e+30]
objective: {score: loss}
"""
    done = cli("sweep", write_sweep(workdir, text), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    by_name = {row["run"]: row for row in rows()}
    assert by_name["rule=sgd,base_lr=0.001"]["state"] == "finished"
    refused = by_name["rule=adagrad,base_lr=0.001"]
    assert refused["state"] == "failed"
    assert "momentum: got 0.9; expected 0 (AdaGrad" in refused["reason"]
    diverged = by_name["rule=sgd,base_lr=1e+30"]
    assert diverged["state"] == "failed"
    # Its own words, or those of the sweep that saw the loss before it had ended.
    assert any(word in diverged["reason"] for word in ("finite", "diverged"))
    assert "failed: rule=adagrad,base_lr=0.001: " in done.stdout
    # What failed has ended, too.
    assert "started" not in cli("sweep", "sweep.yaml").stderr


def test_a_score_that_is_none_is_said_with_those_that_there_are(cli: Cli, workdir: Path) -> None:
    text = GRID.replace("score: loss", "score: accuracy").replace(", 0.0005", "")
    assert cli("sweep", write_sweep(workdir, text)).returncode == 0
    for row in rows():
        said = "there is no finite accuracy; its test scores are loss of net 0"
        assert (row["state"], row["reason"]) == ("failed", said)
    assert "no run has finished yet" in failure(cli("sweep", "best", "out"))


def test_the_hosts_and_the_stock_solver_agree_to_the_bit(cli: Cli, workdir: Path) -> None:
    text = """
base: base.yaml
sweep_dir: out
space: {host: [native, in-net, solve]}
objective: {score: loss, take: mean, of_last: 2}
"""
    done = cli("sweep", write_sweep(workdir, text), "--jobs", "3")
    assert done.returncode == 0, done.stderr
    assert {(row["run"], row["state"]) for row in rows()} == {
        (f"host={host}", "finished") for host in ("native", "in-net", "solve")
    }
    runs = Path("out/runs")
    assert same_bits(runs / "host=native", runs / "host=in-net")
    assert same_bits(runs / "host=native", runs / "host=solve")
    values = [float(row["value"]) for row in rows()]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)  # the log has six digits


def test_optuna_searches_prunes_and_repeats(cli: Cli, workdir: Path) -> None:
    text = """
base: base.yaml
sweep_dir: out
method: tpe
space:
  update.base_lr: {low: 1.0e-5, high: 0.01, log: true}
  update.momentum: [0.9, 0.5]
seeds: [5, 6]
objective: {score: loss, take: last}
budget: {runs: 6}
pruner: {kind: median, startup_runs: 2}
"""
    done = cli("sweep", write_sweep(workdir, text, max_iter=100), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    found = rows()
    assert len(found) == 6 and {row["state"] for row in found} <= {"finished", "pruned"}
    pairs: Dict[str, List[str]] = {}
    for row in found:
        assert 1e-5 <= float(row["update.base_lr"]) <= 0.01
        pairs.setdefault(row["update.base_lr"], []).append(row["seed"])
    assert [sorted(seeds) for seeds in pairs.values()] == [["5", "6"]] * 3


def test_a_sweep_that_differs_is_refused(cli: Cli, workdir: Path) -> None:
    source = write_sweep(workdir, GRID.replace("[0.9, 0.5]", "[0.9]").replace(", 0.0005", ""))
    assert cli("sweep", source).returncode == 0
    source.write_text(source.read_text().replace("[0.9]", "[0.9, 0.1]"))
    assert "space: is not what this sweep was begun with" in failure(cli("sweep", source))


def test_a_dry_run_lists_and_estimates(cli: Cli, workdir: Path) -> None:
    listed = cli("sweep", write_sweep(workdir, GRID), "--dry-run", "--jobs", "2")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert lines[:-1] == [
        f"{workdir}/out/runs/base_lr={rate},momentum={momentum}"
        for rate in ("0.001", "0.0005")
        for momentum in ("0.9", "0.5")
    ]
    assert lines[-1].startswith("4 runs, 2 at once: about ")
    assert not Path("out").exists()


def test_it_shows_itself_on_a_terminal(workdir: Path) -> None:
    source = write_sweep(workdir, GRID.replace("[0.9, 0.5]", "[0.9]"), max_iter=400)
    shown, said = shown_on_terminal_and("stderr", "sweep", source, COLUMNS="120")
    assert "2 runs: " in shown and "running" in shown
    assert "last loss" in said and "last loss" not in shown


def test_a_resolved_run_says_what_it_was(cli: Cli, workdir: Path) -> None:
    source = write_sweep(workdir, GRID.replace("[0.9, 0.5]", "[0.9]").replace(", 0.0005", ""))
    assert cli("sweep", source).returncode == 0
    resolved = yaml.safe_load(Path("out/runs/run/resolved.yaml").read_text())
    assert resolved["update"]["base_lr"] == 0.001
    assert resolved["solver_overrides"]["random_seed"] == 7
    assert time.time() - Path("out/runs/run/result.json").stat().st_mtime < 600


def test_a_budget_of_hours_ends_a_random_search(cli: Cli, workdir: Path) -> None:
    text = """
base: base.yaml
sweep_dir: out
method: random
space: {update.momentum: {low: 0.1, high: 0.9}}
objective: {loss: smoothed, take: last}
budget: {hours: 0.0005}
"""
    done = cli("sweep", write_sweep(workdir, text))
    assert done.returncode == 0, done.stderr
    found = rows()
    assert found and {row["state"] for row in found} == {"finished"}
    assert len({row["update.momentum"] for row in found}) == len(found)
    more = cli("sweep", "sweep.yaml")  # each command has its hours
    assert more.returncode == 0 and len(rows()) > len(found)
