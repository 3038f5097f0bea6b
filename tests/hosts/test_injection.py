"""What injection writes, and that it writes nothing where it must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from helpers.failures import refusal
from helpers.nets import NETS, SHARED, SMALL, write_solver
from helpers.places import PROJECT

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import UpdateSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.solver_file import read_solver

TEMPLATES = sorted((PROJECT / "prototxt_templates").glob("*.prototxt"))


def injected(source: Path) -> tuple[Run, Any, Any]:
    """Inject; return the run, and the written solver and net as read back from their files."""
    run = resolve(source)
    solver = read_solver(write_injected(run, source.parent / "run"))
    return run, solver, read_net(Path(solver.net or solver.train_net))


def with_yaml(workdir: Path, text: str, **solver: Any) -> Path:
    write_solver(workdir, **solver)
    path = workdir / "run.yaml"
    path.write_text(f"solver: solver.prototxt\n{text}\n")
    return path


def test_there_are_three_templates() -> None:
    assert [path.stem for path in TEMPLATES] == ["hook", "parameters", "seal"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_one_valid_train_layer(path: Path) -> None:
    net = text_format.Parse(path.read_text(), pycaffe.messages().NetParameter())
    (layer,) = net.layer
    assert layer.type == "Python"
    assert [rule.phase for rule in layer.include] == [pycaffe.messages().TRAIN]


@pytest.mark.parametrize("name", NETS)
def test_the_hook_is_first_then_come_the_parameters_and_the_seal_is_last(
    workdir: Path, name: str
) -> None:
    run, _, net = injected(write_solver(workdir, NETS[name]))
    kinds = [layer.python_param.layer for layer in net.layer]
    assert kinds[:2] == ["Hook", "Parameters"]
    assert kinds[-1] == "Seal"
    assert not any(kinds[2:-1])
    assert len(net.layer) == len(run.net.layer) + 3
    assert net.layer[0].name == run.settings().hook_name


@pytest.mark.parametrize("name", NETS)
def test_the_other_layers_are_the_users_own_but_for_the_names_of_their_parameters(
    workdir: Path, name: str
) -> None:
    source = write_solver(workdir, NETS[name])
    original = read_net(workdir / "solver_net.prototxt")
    run, _, net = injected(source)
    multipliers = {p.name: p.lr_mult for p in run.parameters}
    for before, after in zip(original.layer, net.layer[2:-1]):
        for index, spec in enumerate(after.param):
            if index < len(before.param):
                if not before.param[index].HasField("name"):
                    spec.ClearField("name")
                if before.param[index] != spec:
                    # lr_mult 0 is what the layer decides itself; then it is said. Every other is
                    # taken away, and known to Python.
                    own = multipliers.get(f"{after.name}/{index}")
                    assert own == spec.lr_mult == 0 or not spec.HasField("lr_mult")
            else:
                assert spec.name
        del before.param[:]
        del after.param[:]
        assert before == after


def test_every_learnable_parameter_is_named_once_in_caffes_order(workdir: Path) -> None:
    run, _, net = injected(write_solver(workdir, SHARED))
    assert [spec.name for spec in net.layer[1].param] == ["w", "b", "out/0", "out/1"]
    assert [p.name for p in run.parameters] == ["left/0", "left/1", "out/0", "out/1"]


def test_generated_names_never_meet_a_users(workdir: Path) -> None:
    clash = SMALL.replace(
        "param { lr_mult: 0.5 }", 'param { name: "out/0" } param { name: "conv/0" }'
    )
    _, _, net = injected(write_solver(workdir, clash))
    assert [spec.name for spec in net.layer[1].param] == [
        "pysgd/conv/0", "conv/1", "out/0", "conv/0", "pysgd/out/0",
    ]  # fmt: skip


def test_the_injected_solver_is_neutral_and_otherwise_the_users_own(workdir: Path) -> None:
    source = write_solver(
        workdir, lr_policy="step", gamma=0.5, stepsize=3, clip_gradients=2.5, iter_size=2,
        display=5, test_iter=3, test_interval=4, snapshot=10, average_loss=2,
        regularization_type="L1", solver_type="SGD", debug_info=False, snapshot_diff=False,
    )  # fmt: skip
    before = read_solver(source)
    _, after, _ = injected(source)
    assert (after.type, after.momentum, after.weight_decay, after.clip_gradients) == (
        "SGD",
        1,
        0,
        -1,
    )
    assert after.net == str(workdir / "run" / "net.prototxt")
    assert after.snapshot_prefix == str(workdir / "solver")
    for field in ("net", "type", "momentum", "weight_decay", "clip_gradients"):
        before.ClearField(field)
        after.ClearField(field)
    assert after == before


def test_what_a_yaml_overrides_stands_in_the_stock_and_in_the_injected_run(workdir: Path) -> None:
    source = with_yaml(
        workdir,
        """update:
          base_lr: 1e-3
          lr_policy: multistep
          stepvalue: [3, 7]
          gamma: 0.5
          momentum: 0.5
          weight_decay: 0
          max_iter: 9
          iter_size: 2
          params:
            - {match: "conv/1", lr_mult: 5}
            - {match: "conv/*", lr_mult: 0, decay_mult: 3}
            - {match: "out/0", decay_mult: 2}
        """,
        stepvalue=[1, 2, 3],
    )
    run = resolve(source)
    stock = read_solver(run.write_stock(workdir / "stock"))
    neutral = read_solver(write_injected(run, workdir / "run"))
    settings = UpdateSettings.from_json(read_net(Path(neutral.net)).layer[0].python_param.param_str)
    h = settings.hyperparameters
    for solver in (stock, neutral):
        assert solver.base_lr == pytest.approx(1e-3)
        assert solver.lr_policy == h["lr_policy"] == "multistep"
        assert list(solver.stepvalue) == h["stepvalue"] == [3, 7]
        assert solver.gamma == h["gamma"] == 0.5
        assert solver.max_iter == h["max_iter"] == 9
        assert solver.iter_size == h["iter_size"] == 2
    assert (stock.momentum, stock.weight_decay) == (0.5, 0)
    assert (h["base_lr"], h["momentum"], h["weight_decay"]) == (1e-3, 0.5, 0)
    expected = {"conv/0": (0, 3), "conv/1": (5, 0), "hidden/0": (0.5, 1), "hidden/1": (1, 1),
                "out/0": (1, 2)}  # fmt: skip
    assert {p.name: (p.lr_mult, p.decay_mult) for p in settings.parameters} == expected
    again = resolve(workdir / "stock" / "solver.prototxt").parameters
    assert {p.name: (p.lr_mult, p.decay_mult) for p in again} == expected


def test_the_iterations_asked_for_replace_max_iter(workdir: Path) -> None:
    run = resolve(write_solver(workdir, max_iter=20), iterations=3)
    assert read_solver(run.write_stock(workdir / "stock")).max_iter == 3
    assert read_solver(write_injected(run, workdir / "run")).max_iter == 3


def test_an_injected_net_is_not_injected_again(workdir: Path) -> None:
    run, _, _ = injected(write_solver(workdir))
    assert refusal(resolve, workdir / "run" / "solver.prototxt") == (
        f"{workdir}/run/net.prototxt: is injected already (layer '{run.settings().hook_name}'); "
        "give the original net"
    )


def test_injecting_twice_writes_the_same_bytes(workdir: Path) -> None:
    source = write_solver(workdir, SHARED)
    contents = []
    for _ in range(2):
        write_injected(resolve(source), workdir / "run")
        contents.append([path.read_bytes() for path in sorted((workdir / "run").iterdir())])
    assert contents[0] == contents[1]


def test_only_the_two_files_are_written(workdir: Path) -> None:
    injected(write_solver(workdir))
    assert sorted(path.name for path in (workdir / "run").iterdir()) == [
        "net.prototxt", "solver.prototxt",
    ]  # fmt: skip


def test_hdf5_and_debug_info_register_the_state_with_the_net(workdir: Path) -> None:
    for fields in ({"snapshot_format": "HDF5"}, {"debug_info": True}):
        run, _, net = injected(write_solver(workdir, **fields))
        # The hook's own blob, the header, and one state blob per parameter.
        assert [spec.lr_mult for spec in net.layer[0].param] == [1, 0, *[0] * len(run.parameters)]


def test_nothing_is_written_where_one_of_the_two_files_cannot_be(workdir: Path) -> None:
    solver = write_solver(workdir, SMALL)
    (workdir / "d" / "solver.prototxt").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder; a file is to be written there"):
        write_injected(resolve(solver), workdir / "d")
    assert [f.name for f in (workdir / "d").iterdir()] == ["solver.prototxt"]
