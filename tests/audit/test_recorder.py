"""The recorder: what it writes down is what happened, whichever host the update runs in."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import caffe
import numpy as np
import pytest
from helpers.failures import failure
from helpers.nets import NORMALIZED, SHARED, SMALL, write_solver
from helpers.recorded_runs import HOSTS, TESTED, dump, record, rows, write_recorded
from helpers.runs import caffe_train, losses

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.diff import compare_audits
from caffe_pysgd.audit.store import Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.update import Observer, Stage
from caffe_pysgd.update.statistics import statistics

# Two losses, one of them weighted and of many values; a score that is tested only.
LOSSES = SMALL.replace(
    'layer { name: "loss"',
    """
layer {
  name: "spread" type: "Power" bottom: "hidden" top: "spread" loss_weight: 0.03
  power_param { power: 2 scale: 0.5 }
}
layer {
  name: "score" type: "Reduction" bottom: "out" top: "score"
  include { phase: TEST } reduction_param { operation: MEAN }
}
layer { name: "loss\"""",
)

TIMES = ("pass_seconds", "update_seconds")


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
        assert check_ledger(files[-1]).whole
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


@pytest.mark.parametrize("net", [LOSSES, SHARED], ids=["losses", "shared"])
def test_taps_change_no_line_of_the_log_and_no_bit(cli: Callable, workdir: Path, net: str) -> None:
    fields = {"max_iter": 6, "display": 1, "average_loss": 2, "iter_size": 2, **TESTED}
    stock = caffe_train(write_solver(workdir, net, **fields))
    source = write_recorded(workdir, "{}", net, **fields)
    ours = cli("train", source, GLOG_logtostderr="1")
    assert stock.returncode == ours.returncode == 0, ours.stderr
    assert "pysgd_tap_loss" in ours.stderr
    assert losses(ours.stderr) == losses(stock.stderr)
    smoothed = rows(workdir / "run/audit.sqlite", "SELECT smoothed_loss FROM iterations")
    logged = re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", stock.stderr)
    assert [f"{value:g}" for (value,) in smoothed] == logged[:6]
    verified = cli("verify", source)
    assert "verify: 0 of" in verified.stdout, verified.stderr


def test_the_loss_is_what_caffe_says(workdir: Path) -> None:
    """The drop-in solver takes it from Caffe's own forward; the others are equal to that."""
    source = write_recorded(workdir, max_iter=5, net=LOSSES)
    native = caffe.SGDSolver("run.prototxt")
    expected = []
    for _ in range(5):
        native.step(1)
        blobs = native.net.blobs
        spread = blobs["spread"].data.ravel()
        total = float(blobs["loss"].data) + float((spread * np.float32(0.03)).sum())
        expected.append(total)
    solver = caffe_pysgd.take_over(source)
    solver.solve()
    solver.close()
    found = [loss for (loss,) in rows(workdir / "run/audit.sqlite", "SELECT loss FROM iterations")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # the sum's order is Caffe's secret


def test_a_net_whose_loss_is_used_elsewhere_has_no_tap_and_no_loss(
    cli: Callable, workdir: Path
) -> None:
    net = SMALL + 'layer { name: "again" type: "Power" bottom: "loss" top: "again" }\n'
    file = record(cli, write_recorded(workdir, max_iter=3, net=net), "in-net")
    assert rows(file, "SELECT count(*), count(loss) FROM iterations") == [(3, 0)]
    assert "verify: 0 of" in cli("verify", "run.yaml").stdout


class Seen(Observer):
    """Everything, kept."""

    def __init__(self) -> None:
        self.arrays: List[tuple] = []

    def observe(self, iteration, rate, parameter, stage, array) -> None:  # type: ignore
        self.arrays.append((iteration, float(rate), parameter.name, stage, array.copy()))


def test_figures_histograms_probes_and_hashes_are_those_of_the_arrays(workdir: Path) -> None:
    options = "{every: 2, histograms: 3, weights_every: 4, probes: [{param: conv/1, index: [2]}]}"
    solver = caffe_pysgd.get_solver(write_recorded(workdir, options, max_iter=8))
    seen = Seen()
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
        for iteration, rate, name, stage, array in seen.arrays:
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
    solver = caffe_pysgd.get_solver(source)
    solver.step(6)
    solver.close()
    with Store(workdir / "run") as store:
        numbers = {p.name: p.parameter for p in store.parameters()}
        rates = np.array([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025], np.float32)
        assert list(store.updates(numbers["out/0"], "local_rate")[1]) == list(rates.astype(float))
        conv = float(np.float32(0.01) * np.float32(2))
        assert list(store.updates(numbers["conv/1"], "local_rate")[1]) == [conv] * 6


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


def test_the_manifest_says_what_ran_and_on_what(cli: Callable, workdir: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "c"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    source = write_recorded(workdir, max_iter=2)
    weights = [p.data.tobytes() for p in caffe_pysgd.get_solver("run.prototxt").updater.parameters]
    for host in HOSTS:
        with Store(record(cli, source, host)) as store:
            manifest = store.manifest()
        assert manifest["host"] == host
        assert manifest["state"] == "fresh"
        assert manifest["random_seed"] == 7
        assert manifest["git"]["commit"] == commit.strip()
        assert manifest["rule"] == "sgd"
        assert manifest["on_nonfinite"] == "stop"
        assert "base_lr: 0.01" in manifest["solver"]
        assert 'name: "small"' in manifest["net"]
        assert manifest["versions"]["numpy"] == np.__version__
        assert all(len(sha256) == 64 for sha256 in manifest["caffe"]["files"].values())
        assert manifest["cpu"]
        assert manifest["blas"]
        found = list(manifest["initial_weights"]["parameters"].values())
        assert found == [hashlib.sha256(bits).hexdigest() for bits in weights]


# -- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_a_resumed_run_goes_on_in_the_same_file(cli: Callable, workdir: Path, host: str) -> None:
    source = write_recorded(workdir, max_iter=6, snapshot=4)
    file = record(cli, source, host)
    if host == "in-net":
        resumed = cli("train", source, "--snapshot=run_snap_iter_4.solverstate", "--iterations=9")
        assert resumed.returncode == 0, resumed.stderr
    else:
        make = {"hook": caffe_pysgd.take_over, "solver": caffe_pysgd.get_solver}[host]
        solver = make(source)
        solver.restore("run_snap_iter_4.solverstate")
        solver.step(5)
        solver.close()
    found = check_ledger(file)
    assert (found.whole, found.sessions, found.iterations) == (True, 2, 6 + 5)
    with Store(file) as store:
        assert list(store.series("loss")[0]) == list(range(9))
        assert [s.start_iteration for s in store.sessions()] == [0, 4]
        assert store.manifest()["state"] == "resumed at iteration 4"
        assert [row["kind"] for row in store.rows("events")] == ["resumed"]
        assert {row["iteration"] for row in store.rows("snapshots")} >= {4, 8}
        assert 6 not in {row["iteration"] for row in store.rows("snapshots")}
    assert not list(workdir.glob("run/audit.?.sqlite"))


@pytest.mark.parametrize("host", HOSTS)
def test_a_new_run_keeps_the_audit_of_the_run_before(
    cli: Callable, workdir: Path, host: str
) -> None:
    source = write_recorded(workdir, max_iter=3)
    for _ in range(3):
        file = record(cli, source, host)
    kept = sorted(path.name for path in workdir.glob("run/audit*.sqlite"))
    assert kept == ["audit.1.sqlite", "audit.2.sqlite", "audit.sqlite"]
    for name in kept:
        found = check_ledger(file.with_name(name))
        assert (found.whole, found.sessions, found.iterations) == (True, 1, 3)


def test_restoring_in_the_middle_begins_a_session(workdir: Path) -> None:
    solver = caffe_pysgd.get_solver(write_recorded(workdir, max_iter=20, snapshot=3))
    solver.step(5)
    solver.restore("run_snap_iter_3.solverstate")
    solver.step(2)
    solver.iter = 11
    solver.step(2)
    solver.close()
    assert check_ledger(workdir / "run").whole
    sql = "SELECT session, group_concat(iteration) FROM iterations GROUP BY session"
    found = rows(workdir / "run/audit.sqlite", sql)
    assert found == [(1, "0,1,2,3,4"), (2, "3,4"), (3, "11,12")]


def test_two_writers_of_one_file_are_refused(cli: Callable, workdir: Path) -> None:
    source = write_recorded(workdir, max_iter=3)
    solver = caffe_pysgd.get_solver(source)
    solver.step(1)
    before = dump(workdir / "run/audit.sqlite", ["iterations"])
    with pytest.raises(UserError, match="a solver of this process is recording into it; wait"):
        caffe_pysgd.take_over(source)
    for command in ("train", "solve"):
        said = failure(cli(command, source, GLOG_minloglevel="2"))
        assert "run/audit.sqlite: another process is recording into it; wait" in said
    assert dump(workdir / "run/audit.sqlite", ["iterations"]) == before
    solver.step(1)
    solver.close()
    assert check_ledger(workdir / "run").iterations == 2
    caffe_pysgd.take_over(source)


def test_a_solver_that_is_dropped_or_outlives_the_program_ends_its_session(workdir: Path) -> None:
    source = write_recorded(workdir, max_iter=3)
    solver = caffe_pysgd.take_over(source)
    solver.step(1)
    del solver
    program = (
        "import sys; import caffe_pysgd; keep = caffe_pysgd.get_solver(sys.argv[1]); keep.step(2)"
    )
    subprocess.run([sys.executable, "-c", program, str(source)], check=True)
    for name in ("audit.sqlite", "audit.1.sqlite"):
        ((ended,),) = rows(workdir / "run" / name, "SELECT ended FROM sessions")
        assert ended
        assert check_ledger(workdir / "run" / name).whole


def test_it_can_be_read_while_training_runs(workdir: Path) -> None:
    solver = caffe_pysgd.get_solver(write_recorded(workdir, max_iter=9))
    solver.step(1)
    with Store(workdir / "run") as store:
        for done in range(1, 9):
            assert store.span()[1] == done - 1
            assert check_ledger(store.path).whole
            solver.step(1)
    solver.close()


# -- without being asked --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "solve"])
def test_without_an_audit_the_loss_the_manifest_and_hashes_are_left(
    cli: Callable, workdir: Path, command: str
) -> None:
    write_solver(workdir, max_iter=10, **TESTED)
    done = cli(command, "solver.prototxt", GLOG_logtostderr="1")
    assert done.returncode == 0, done.stderr
    file = workdir / "runs/solver/audit.sqlite"
    assert check_ledger(file).whole
    counted = {table: len(found) for table, found in dump(file, ("figures", "updates")).items()}
    assert counted == {"figures": 0, "updates": 0}
    found = rows(file, "SELECT count(*), count(loss), count(weights_hash) FROM iterations")
    assert found == [(10, 10, 3)]
    assert [i for (i,) in rows(file, "SELECT DISTINCT iteration FROM weights")] == [3, 7, 9]
    assert rows(file, "SELECT count(*) FROM tests") == [(6,)]
    with Store(file) as store:
        assert 'name: "small"' in store.manifest()["net"]


def test_a_library_user_records_only_if_the_yaml_asks(workdir: Path) -> None:
    before = {path.name for path in workdir.iterdir()}
    for make in (caffe_pysgd.take_over, caffe_pysgd.get_solver):
        write_solver(workdir)
        solver = make("solver.prototxt")
        solver.step(2)
        assert not solver.updater.observers
    assert {p.name for p in workdir.iterdir()} - before == {
        "solver.prototxt",
        "solver_net.prototxt",
    }


# -- gradients that are not finite ----------------------------------------------------------------

# The gradient of the second layer overflows in the third or so iteration.
EXPLODING = {"base_lr": 1e9, "momentum": 0, "weight_decay": 0, "max_iter": 12}


def first_bad(workdir: Path) -> tuple:
    """Return parameter, iteration and count, as a native solver shows them."""
    solver = caffe.SGDSolver("run.prototxt")
    found = []

    def look() -> None:
        for name, blobs in solver.net.params.items():
            for index, blob in enumerate(blobs):
                bad = int((~np.isfinite(blob.diff)).sum())
                if bad and not found:
                    found.append((f"{name}/{index}", solver.iter, bad, blob.diff.size))

    solver.add_callback(lambda: None, look)
    solver.step(12)
    return found[0]


@pytest.mark.parametrize("every", [1, 50])
@pytest.mark.parametrize("host", HOSTS)
def test_a_gradient_that_is_not_finite_stops_training_with_a_sentence(
    cli: Callable, workdir: Path, host: str, every: int
) -> None:
    source = write_recorded(workdir, f"{{every: {every}}}", **EXPLODING)
    name, iteration, bad, size = first_bad(workdir)
    values = f"{size} value{'s' * (size > 1)}"
    sentence = f"{name}: {bad} of {values} of the gradient at iteration {iteration} "
    if host == "in-net":
        said = failure(cli("train", source, GLOG_minloglevel="2"))
    else:
        make = {"hook": caffe_pysgd.take_over, "solver": caffe_pysgd.get_solver}[host]
        with pytest.raises(UserError) as raised:
            make(source).solve()
        said = str(raised.value)
    assert said.startswith(sentence), said
    assert "training stops here" in said
    file = workdir / "run/audit.sqlite"
    found = check_ledger(file)
    assert (found.whole, found.last_iteration) == (True, iteration)
    assert found.iterations == (iteration + 1 if every == 1 else 2)
    kinds = rows(file, "SELECT iteration, kind, message FROM events")
    assert kinds[0][:2] == (iteration, "nonfinite")
    assert kinds[0][2].startswith(sentence)


def test_skip_leaves_weights_and_history_as_they_are(workdir: Path) -> None:
    source = write_recorded(workdir, "{on_nonfinite: skip}", **EXPLODING)
    _, iteration, _, _ = first_bad(workdir)
    solver = caffe_pysgd.get_solver(source)
    solver.step(iteration)
    before = [p.data.copy() for p in solver.updater.parameters]
    solver.step(3)
    assert solver.iter == iteration + 3
    for parameter, data in zip(solver.updater.parameters, before):
        assert parameter.data.tobytes() == data.tobytes()
    solver.close()
    file = workdir / "run/audit.sqlite"
    assert check_ledger(file).iterations == iteration + 3
    sql = "SELECT DISTINCT iteration, kind FROM events"
    assert rows(file, sql) == [(iteration + n, "skipped") for n in range(3)]
    assert rows(file, "SELECT max(iteration) FROM figures") == [(iteration - 1,)]


def test_record_goes_on_as_caffe_does(workdir: Path) -> None:
    source = write_recorded(workdir, "{on_nonfinite: record}", **EXPLODING)
    name, iteration, bad, _ = first_bad(workdir)
    solver = caffe_pysgd.get_solver(source)
    solver.solve()
    solver.close()
    file = workdir / "run/audit.sqlite"
    assert check_ledger(file).iterations == 12
    kinds = rows(file, "SELECT DISTINCT kind FROM events")
    assert kinds == [("nonfinite",)]
    sql = (
        "SELECT nonfinite FROM figures JOIN parameters USING (session, parameter)"
        " WHERE name = ? AND iteration = ? AND quantity = 'gradient'"
    )
    assert rows(file, sql, name, iteration) == [(bad,)]


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ("{every: 0}", "audit.every: got 0; expected greater than or equal to 1"),
        ("{evry: 1}", "audit.evry: unknown key; did you mean 'every'?"),
        ("{on_nonfinite: stop}", "audit.on_nonfinite: got 'stop'; expected 'raise', 'skip' or"),
        ("{probes: [{param: conv/0, at: 1}]}", "audit.probes[0].at: unknown key"),
        ("{probes: [{param: con/0, index: [0]}]}", "got 'con/0'; expected one of conv/0, "),
        ("{probes: [{param: conv/0, index: [5, 0, 0, 0]}]}", "within its shape [5, 2, 3, 3]"),
        ("{probes: [{param: conv/0, index: [90]}]}", "within its shape [5, 2, 3, 3]"),
        ("7", "audit: got 7; expected"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(workdir: Path, audit: str, said: str) -> None:
    source = write_recorded(workdir, audit)
    with pytest.raises(UserError) as raised:
        caffe_pysgd.get_solver(source)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{source}: audit")


def test_audit_alone_and_true_ask_for_one_and_false_for_none(workdir: Path) -> None:
    for audit, wanted in (("", True), ("true", True), ("false", False)):
        solver = caffe_pysgd.get_solver(write_recorded(workdir, audit))
        assert bool(solver.updater.observers) == wanted


def test_a_file_that_is_something_else_is_left_alone(workdir: Path) -> None:
    source = write_recorded(workdir)
    (workdir / "run").mkdir()
    (workdir / "run/audit.sqlite").write_text("my diary")
    solver = caffe_pysgd.get_solver(source)
    solver.step(1)
    solver.close()
    assert (workdir / "run/audit.1.sqlite").read_text() == "my diary"
    assert check_ledger(workdir / "run").whole


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
