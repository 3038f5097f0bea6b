"""The recorder: what it writes down is what happened, whichever host the update runs in."""

from __future__ import annotations

import hashlib
import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from helpers.hosts import HOSTS
from helpers.nets import LOSSES, NORMALIZED, SMALL
from helpers.observers import Arrays
from helpers.recorded_runs import TESTED, dump, record, record_iterations, rows, write_recorded

import caffe_pysgd
from caffe_pysgd.audit import manifest
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.diff import compare_audits
from caffe_pysgd.audit.store import Store
from caffe_pysgd.update import Stage
from caffe_pysgd.update.statistics import statistics


@pytest.mark.parametrize(
    ("net", "fields"),
    [(SMALL, {}), (LOSSES, {"iter_size": 3, "average_loss": 4})],
    ids=["one loss", "several losses, averaged"],
)
def test_the_hosts_record_the_same_bits(
    cli: Callable, workdir: Path, net: str, fields: dict
) -> None:
    files = []
    for host in HOSTS:
        source = write_recorded(
            workdir,
            "{weights_every: 3}",
            net,
            host,
            max_iter=9,
            clip_gradients=1,
            **TESTED,
            **fields,
        )
        files.append(record(cli, source, host))
        assert check_ledger(files[-1]).intact
    sql = "SELECT iteration, rate, loss, smoothed_loss, gradient_l2, clip_factor, weights_hash"
    first = rows(files[0], f"{sql} FROM iterations")
    assert [row[0] for row in first] == list(range(9))
    assert None not in [row[2] for row in first]
    assert [row[0] for row in first if row[-1]] == [2, 5, 8]
    tables = ("updates", "figures", "weights", "tests", "parameters")
    for file in files[1:]:
        assert rows(file, f"{sql} FROM iterations") == first
        assert dump(file, tables) == dump(files[0], tables)
        assert compare_audits(files[0], file).same
    tested = rows(files[0], "SELECT DISTINCT iteration FROM tests")
    assert tested == [(0,), (2,), (4,), (6,), (8,)]
    snapshots = [rows(file, "SELECT iteration, path, sha256 FROM snapshots") for file in files]
    for found in snapshots:
        assert [row[0] for row in found] == [4, 4, 8, 8, 9, 9]
        for _, path, sha256 in found:
            assert sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_figures_histograms_probes_and_hashes_are_those_of_the_arrays(workdir: Path) -> None:
    options = "{every: 2, histograms: 3, weights_every: 4, probes: [{param: conv/1, index: [2]}]}"
    solver = caffe_pysgd.get_solver(write_recorded(workdir, options, max_iter=8))
    seen = Arrays()
    solver.updater.observers.append(seen)
    hashes = {}
    for _ in range(8):
        solver.step(1)
        hashes[solver.iter - 1] = [
            hashlib.sha256(p.data.tobytes()).hexdigest() for p in solver.updater.parameters
        ]
    solver.close()
    with Store(workdir / "run") as store:
        numbers = {p.name: p.parameter for p in store.parameters()}
        assert list(store.series("rate")[0]) == [0, 2, 3, 4, 6, 7]
        for row in store.rows("weights"):
            assert row["sha256"] == hashes[row["iteration"]][row["parameter"]]
        assert {row["iteration"] for row in store.rows("weights")} == {3, 7}
        figures, histograms, probes = 0, 0, 0
        for iteration, rate, name, stage, array in seen.heard:
            key = {"iteration": iteration, "parameter": numbers[name]}
            if stage in (Stage.GRADIENT, Stage.UPDATE, Stage.DATA):
                for row in store.rows("figures", quantity=stage.value, **key):
                    assert iteration % 2 == 0
                    found = tuple(
                        row[n] for n in ("l2", "mean", "min", "max", "zeros", "nonfinite")
                    )
                    assert found == statistics(array)
                    figures += 1
                for row in store.rows("histograms", quantity=stage.value, **key):
                    counts, edges = np.histogram(array.astype(np.float64), 64)
                    assert json.loads(row["counts"]) == counts.tolist()
                    assert (row["low"], row["high"]) == (edges[0], edges[-1])
                    histograms += 1
            for row in store.rows("probes", stage=stage.value, **key):
                assert (name, row["element"]) == ("conv/1", 2)
                assert np.uint32(row["bits"]).view(np.float32) == array[2] == row["value"]
                probes += 1
            for row in store.rows("updates", **key):
                lr_mult = {"conv/1": 2, "hidden/0": 0.5}.get(name, 1)
                assert row["local_rate"] == np.float32(rate) * np.float32(lr_mult)
        assert (figures, histograms, probes) == (4 * 5 * 3, 3 * 5 * 3, 4 * 6)
        before = list(store.rows("probes", iteration=4, stage="history before"))
        after = list(store.rows("probes", iteration=2, stage="history"))
        assert before[0]["bits"] != after[0]["bits"]  # iteration 3 lies between


def test_a_parameter_with_a_policy_of_its_own_has_its_own_rate(workdir: Path) -> None:
    source = write_recorded(workdir, max_iter=6)
    groups = "[{match: out/0, lr_policy: step, gamma: 0.5, stepsize: 2}]"
    source.write_text(source.read_text() + f"update: {{params: {groups}}}\n")
    record_iterations(source, 6)
    with Store(workdir / "run") as store:
        numbers = {p.name: p.parameter for p in store.parameters()}
        rates = np.array([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025], np.float32)
        assert list(store.updates(numbers["out/0"], "local_rate")[1]) == list(rates.astype(float))
        conv = float(np.float32(0.01) * np.float32(2))
        assert list(store.updates(numbers["conv/1"], "local_rate")[1]) == [conv] * 6


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("host", HOSTS)
def test_the_recorded_rate_of_a_group_is_the_one_that_was_used(
    workdir: Path, cli: Callable, host: str, every: int
) -> None:
    source = write_recorded(workdir, audit=f"{{every: {every}}}", base_lr=0.1, max_iter=9)
    own = "{match: 'out/*', lr_policy: multistep, gamma: 0.5, stepvalue: [2, 3]}"
    source.write_text(source.read_text() + f"update: {{params: [{own}]}}\n")
    recorded = rows(
        record(cli, source, host),
        "SELECT iteration, local_rate / lr_mult FROM updates JOIN parameters "
        "ON updates.parameter = parameters.parameter WHERE name = 'out/0' ORDER BY iteration",
    )
    passed = [0, 0, 1, 2, 2, 2, 2, 2, 2]
    expected = [(i, float(np.float32(float(np.float32(0.1)) * 0.5 ** passed[i]))) for i in range(9)]
    assert recorded == expected[::every]


def test_running_statistics_are_marked_and_have_no_ratio(cli: Callable, workdir: Path) -> None:
    source = write_recorded(workdir, net=NORMALIZED, max_iter=3)
    record(cli, source, "solver")
    with Store(workdir / "run") as store:
        parameters = store.parameters()
        statistics = [p.name for p in parameters if p.statistic]
        assert statistics == [p.name for p in parameters if "norm/" in p.name] != []
        for parameter in parameters:
            _, ratios = store.updates(parameter.parameter, "ratio")
            assert np.isnan(ratios).all() if parameter.statistic else len(ratios) == 3
            assert np.isfinite(ratios).all() or parameter.lr_mult == 0
    shown = cli("watch", "run", "--once").stdout
    assert "norm/0 (statistic)" in shown and "conv/0 (" not in shown


def test_a_commit_and_whether_files_differ_from_it(workdir: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q", ".")
    assert manifest.command()["git"] is None
    Path("file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "c")
    Path("untracked").write_text("")
    commit = git("rev-parse", "HEAD")
    assert manifest.command()["git"] == {"commit": commit, "changed": False}
    Path("file").write_text("two")
    assert manifest.command()["git"] == {"commit": commit, "changed": True}


def test_the_manifest_says_what_ran_and_on_what(cli: Callable, workdir: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "c"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    source = write_recorded(workdir, max_iter=2)
    weights = [p.data.tobytes() for p in caffe_pysgd.get_solver("run.prototxt").updater.parameters]
    for host in HOSTS:
        with Store(record(cli, source, host)) as store:
            stated = store.manifest()
        assert stated["host"] == host
        assert stated["state"] == "fresh"
        assert stated["random_seed"] == 7
        assert stated["git"]["commit"] == commit.strip()
        assert stated["rule"] == "sgd"
        assert stated["on_nonfinite"] == "stop"
        assert "base_lr: 0.01" in stated["solver"]
        assert 'name: "small"' in stated["net"]
        packages = ("numpy", "protobuf", "llvmlite", "h5py", "mpi4py")
        assert stated["versions"].items() >= {(p, metadata.version(p)) for p in packages}
        assert all(len(sha256) == 64 for sha256 in stated["caffe"]["files"].values())
        assert stated["cpu"]
        assert stated["blas"]
        found = list(stated["initial_weights"]["parameters"].values())
        assert found == [hashlib.sha256(bits).hexdigest() for bits in weights]
