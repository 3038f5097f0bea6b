"""``convert``: snapshots between in-net and stock, round trips to the last bit, and stripping."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import caffe
import pytest
from helpers.failures import failure
from helpers.nets import NETS, RULES_OF_CAFFE, SMALL, write_solver
from helpers.runs import Both, assert_same_bits, caffe_train, same_weights, step_both, weights_of
from helpers.solvers import SUFFIX, native

from caffe_pysgd import get_solver
from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.convert import strip, to_in_net, to_stock
from caffe_pysgd.stock.snapshots import read_model, read_solver_state
from caffe_pysgd.update.bits import compare

POLICY = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 2, 6]}


def trained(workdir: Path, net: str = SMALL, **fields: Any) -> Tuple[Both, Path, Path]:
    """Train four iterations both ways; return the two ``.solverstate`` files, too."""
    both = Both.write(write_solver(workdir, net, **{**POLICY, **fields}))
    for solver in step_both(both, 4).values():
        solver.snapshot()
    suffix = SUFFIX[fields.get("snapshot_format", "BINARYPROTO")]
    stock, ours = (path.parent / f"snap_iter_4.solverstate{suffix}"
                   for path in (both.stock, both.ours))  # fmt: skip
    return both, stock, ours


def same_in_net(expected: Path, found: Path) -> None:
    """Compare two in-net snapshots, plugin layers and all."""
    states = [read_solver_state(path) for path in (expected, found)]
    assert states[0].iteration == states[1].iteration
    assert states[0].current_step == states[1].current_step
    assert [b.tobytes() for b in states[0].history] == [b.tobytes() for b in states[1].history]
    models = [read_model(state.learned_net) for state in states]
    assert {name for name in models[0] if models[0][name]} == {
        name for name in models[1] if models[1][name]
    }
    for layer, blobs in models[0].items():
        pairs = zip(blobs, models[1].get(layer, []))
        for index, (one, other) in enumerate(pairs):
            assert_same_bits([compare(f"{layer}/{index}", one.ravel(), other.ravel())])


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_round_trips_keep_every_bit_and_either_host_goes_on(
    workdir: Path, rule: str, format: str
) -> None:
    fields = {"type": rule, "snapshot_format": format, **RULES_OF_CAFFE[rule]}
    both, stock, ours = trained(workdir, NETS["normalized"], **fields)
    to = to_stock(ours, both.run, workdir / "to_stock")
    assert to == workdir / f"to_stock_iter_4.solverstate{SUFFIX[format]}"
    assert read_solver_state(to).learned_net.name.startswith("to_stock_iter_4.caffemodel")
    assert_states_equal(stock, to, both)
    back = to_in_net(to, both.run, workdir / "back")
    same_in_net(ours, back)
    same_in_net(ours, to_in_net(stock, both.run, workdir / "of_stock"))
    again = to_stock(back, both.run, workdir / "again")
    assert_states_equal(stock, again, both)
    weights = []
    for path, state in (
        (both.stock, stock),
        (both.stock, to),
        (both.ours, ours),
        (both.ours, back),
    ):
        solver = native(path)
        solver.restore(str(state))
        assert solver.iter == 4
        caffe.set_random_seed(6)
        solver.step(4)
        weights.append(weights_of(both, solver))
        solver.snapshot()
    for other in weights[1:]:
        same_weights(both, weights[0], other, "after four more")
    assert_same_bits(both.final(8))


def assert_states_equal(stock: Path, converted: Path, both: Both) -> None:
    one, other = read_solver_state(stock), read_solver_state(converted)
    assert (other.iteration, other.current_step) == (one.iteration, one.current_step) == (4, 2)
    assert [b.tobytes() for b in other.history] == [b.tobytes() for b in one.history]
    models = [read_model(state.learned_net) for state in (one, other)]
    assert not [name for name in models[1] if "pysgd" in name]
    for p in both.run.parameters:
        blobs = [model[p.layer][p.index].ravel() for model in models]
        assert_same_bits([compare(p.name, *blobs)])


@pytest.mark.parametrize("format", SUFFIX)
def test_shared_parameters_survive_the_round_trip(workdir: Path, format: str) -> None:
    both, stock, ours = trained(workdir, NETS["shared"], snapshot_format=format)
    to = to_stock(ours, both.run, workdir / "to_stock")
    assert_states_equal(stock, to, both)
    same_in_net(ours, to_in_net(to, both.run, workdir / "back"))


@pytest.mark.parametrize("format", SUFFIX)
def test_the_command_converts_there_and_back_and_both_programs_resume(
    cli: Callable, workdir: Path, format: str
) -> None:
    end = SUFFIX[format]
    fields = {"type": "Adam", "snapshot_format": format, "max_iter": 4, "base_lr": 0.001}
    source = write_solver(workdir, snapshot_prefix="run", **fields)
    assert cli("train", source, "--run-dir=injected").returncode == 0
    converted = cli("convert", source, "out/stock", "--snapshot", f"run_iter_4.solverstate{end}")
    assert converted.returncode == 0, converted.stderr
    assert converted.stdout == f"out/stock_iter_4.solverstate{end}\n"
    back = cli("convert", source, "in/net", "--snapshot", converted.stdout.strip())
    assert (back.returncode, back.stdout) == (0, f"in/net_iter_4.solverstate{end}\n")
    longer = write_solver(
        workdir, name="longer", snapshot_prefix="long", **{**fields, "max_iter": 7}
    )
    resumed = caffe_train(longer, f"--snapshot={converted.stdout.strip()}")
    assert resumed.returncode == 0, resumed.stderr
    states = [Path(f"long_iter_7.solverstate{end}").rename(f"stock.solverstate{end}")]
    models = [read_model(Path(f"long_iter_7.caffemodel{end}"))]
    train = ["train", longer, "--run-dir=injected", f"--snapshot={back.stdout.strip()}"]
    resumed = cli(*train, GLOG_logtostderr="1")
    assert resumed.returncode == 0, resumed.stderr
    assert "state resumed" in resumed.stderr
    there = cli("convert", longer, "end", "--snapshot", f"long_iter_7.solverstate{end}")
    assert there.returncode == 0, there.stderr
    states.append(Path(f"end_iter_7.solverstate{end}"))
    models.append(read_model(Path(f"end_iter_7.caffemodel{end}")))
    histories = [[b.tobytes() for b in read_solver_state(state).history] for state in states]
    assert histories[0] == histories[1]
    for layer in ("conv", "hidden", "out"):
        assert [b.tobytes() for b in models[0][layer]] == [b.tobytes() for b in models[1][layer]]


@pytest.mark.parametrize("format", SUFFIX)
def test_a_stripped_model_is_the_native_solvers(cli: Callable, workdir: Path, format: str) -> None:
    both, _, _ = trained(workdir, NETS["normalized"], snapshot_format=format)
    end = SUFFIX[format]
    stripped = cli("convert", f"ours/snap_iter_4.caffemodel{end}", f"plain.caffemodel{end}")
    assert (stripped.returncode, stripped.stdout) == (0, f"plain.caffemodel{end}\n")
    expected, found = (read_model(Path(name)) for name in (
        f"stock/snap_iter_4.caffemodel{end}", f"plain.caffemodel{end}"))  # fmt: skip
    assert list(found) == list(expected)
    for layer, blobs in expected.items():
        assert [b.tobytes() for b in found[layer]] == [b.tobytes() for b in blobs]
    net = caffe.Net(str(workdir / "solver_net.prototxt"), caffe.TRAIN)
    net.copy_from(f"plain.caffemodel{end}")
    for p in both.run.parameters:
        data = net.params[p.layer][p.index].data.ravel()
        assert_same_bits([compare(p.name, expected[p.layer][p.index], data)])
    content = Path(f"plain.caffemodel{end}").read_bytes()
    strip(Path(f"plain.caffemodel{end}"), Path(f"plain.caffemodel{end}"))  # in its own place
    assert read_model(Path(f"plain.caffemodel{end}")).keys() == expected.keys()
    assert format == "HDF5" or Path(f"plain.caffemodel{end}").read_bytes() == content


def test_what_cannot_be_stripped_is_refused(cli: Callable, workdir: Path) -> None:
    trained(workdir)
    Path("cut.caffemodel").write_bytes(Path("ours/snap_iter_4.caffemodel").read_bytes()[:500])
    Path("cut.caffemodel.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    for name in ("cut.caffemodel", "cut.caffemodel.h5"):
        assert failure(cli("convert", name, "out")) == (
            f"{name}: is not a complete Caffe model (.caffemodel)"
        )
    assert "give --snapshot" in failure(cli("convert", "solver.prototxt", "out"))
    assert "No such file" in failure(cli("convert", "no.caffemodel", "out"))
    assert not Path("out").exists()


REFUSED: Dict[str, str] = {
    "adamw": "update: {rule: adamw}",
    "lion": "update: {rule: lion}",
    "nesterov": "update: {params: [{match: 'out/0', rule: nesterov}]}",
}


@pytest.mark.parametrize("rule", REFUSED)
def test_a_rule_that_caffe_lacks_is_refused_by_name(workdir: Path, rule: str) -> None:
    write_solver(workdir, SMALL)
    (workdir / "run.yaml").write_text(f"solver: solver.prototxt\n{REFUSED[rule]}\n")
    both = Both.write(workdir / "run.yaml")
    solver = native(both.ours)
    solver.step(2)
    solver.snapshot()
    before = sorted(workdir.rglob("*"))
    for change in (to_stock, to_in_net):
        with pytest.raises(UserError, match=f"has rule '{rule}': a stock snapshot holds"):
            change(both.ours.parent / "snap_iter_2.solverstate", both.run, workdir / "converted")
    assert sorted(workdir.rglob("*")) == before


def test_a_snapshot_of_another_run_is_refused(cli: Callable, workdir: Path) -> None:
    trained(workdir)
    write_solver(workdir, NETS["normalized"], name="other")
    write_solver(workdir, name="adam", type="Adam")
    before = sorted(workdir.rglob("*"))
    for solver, state, words in (
        ("other", "ours/snap_iter_4.solverstate", "is a snapshot of another net"),
        ("other", "stock/snap_iter_4.solverstate", "is a snapshot of another net"),
        ("adam", "ours/snap_iter_4.solverstate", "holds the state of rule 'sgd'"),
        ("adam", "stock/snap_iter_4.solverstate", "another solver type"),
        ("solver", "ours/snap_iter_4.caffemodel", "is not a complete Caffe solver state"),
        ("solver", "no.solverstate", "No such file"),
    ):
        command = ["convert", f"{solver}.prototxt", "converted", "--snapshot", state]
        assert words in failure(cli(*command))
    assert sorted(workdir.rglob("*")) == before


def test_the_drop_in_resumes_from_a_converted_snapshot(workdir: Path) -> None:
    both, stock, ours = trained(workdir)
    to = to_stock(ours, both.run, workdir / "to_stock")
    first = native(both.stock)
    first.restore(str(stock))
    solver = get_solver(workdir / "solver.prototxt")
    with pytest.raises(UserError, match="was taken by an in-net run; 'caffe-pysgd convert'"):
        solver.restore(str(ours))
    solver.restore(str(to))
    for one in (first, solver):
        caffe.set_random_seed(6)
        one.step(3)
    same_weights(both, weights_of(both, first), weights_of(both, solver), "after resuming")
