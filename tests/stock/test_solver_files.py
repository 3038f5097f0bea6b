"""Every way in which a solver file names its nets, and what Caffe completes and upgrades in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional

import caffe
import pytest
from helpers.failures import refusal
from helpers.nets import SMALL, prototxt
from helpers.runs import caffe_train

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.settings import FIRST_STATE_BLOB
from caffe_pysgd.stock.snapshots import read_model, read_solver_state
from caffe_pysgd.stock.solver_file import read_solver, read_train_net
from caffe_pysgd.update.bits import compare

SETTINGS = prototxt(
    {
        "base_lr": 0.05, "lr_policy": "fixed", "momentum": 0.9, "weight_decay": 0.01,
        "max_iter": 4, "random_seed": 3, "snapshot_prefix": "snap", "solver_mode": "CPU",
        "test_interval": 2, "test_iter": 2,
    }
)  # fmt: skip
INLINE = SMALL.replace("\n", "\n  ")

FORMS = {
    "net": 'net: "net.prototxt"',
    "train_net": 'train_net: "net.prototxt" test_net: "net.prototxt"',
    "net_param": f"net_param {{ {INLINE} }}",
    "train_net_param": f"train_net_param {{ {INLINE} }}\ntest_net_param {{ {INLINE} }}",
    "train_net with test_net_param": f'train_net: "net.prototxt"\ntest_net_param {{ {INLINE} }}',
}


def write(directory: Path, nets: str, settings: str = SETTINGS) -> Path:
    (directory / "net.prototxt").write_text(SMALL)
    path = directory / "solver.prototxt"
    path.write_text(f"{nets}\n{settings}")
    return path


def outputs_of_test_net(log: str) -> List[str]:
    return [line.split("] ")[1] for line in log.splitlines() if "Test net output" in line]


@pytest.mark.parametrize("form", FORMS)
def test_each_way_of_naming_the_nets_trains_and_tests_as_the_stock_file_does(
    workdir: Path, form: str
) -> None:
    source = write(workdir, FORMS[form])
    stock = caffe_train(source)
    assert stock.returncode == 0, stock.stderr
    expected = read_solver_state(Path("snap_iter_4.solverstate"))
    weights = read_model(expected.learned_net)
    run = resolve(source)
    ours = caffe_train(write_injected(run, workdir / "run"))
    assert ours.returncode == 0, ours.stderr
    assert "Python owns the update: rule sgd, 5 parameters" in ours.stderr
    assert len(outputs_of_test_net(stock.stderr)) == 3
    assert outputs_of_test_net(ours.stderr) == outputs_of_test_net(stock.stderr)
    model = read_model(Path("snap_iter_4.caffemodel"))
    state = model[run.settings().hook_name][FIRST_STATE_BLOB:]
    for number, p in enumerate(run.parameters):
        assert not compare(p.name, weights[p.layer][p.index], model[p.layer][p.index]).differ
        assert not compare(p.name, expected.history[number], state[number]).differ


@pytest.mark.parametrize(
    ("nets", "said"),
    [
        ("", "no train net is given"),
        ('test_net: "net.prototxt"', "no train net is given"),
        ('net: "a" train_net: "b"', "net and train_net are given"),
        ('net: "a" net_param { } train_net_param { }',
         "net and net_param and train_net_param are given"),
    ],
)  # fmt: skip
def test_a_solver_names_exactly_one_train_net(tmp_path: Path, nets: str, said: str) -> None:
    path = write(tmp_path, nets)
    assert refusal(read_solver, path) == (
        f"{path}: {said}; give exactly one of net, net_param, train_net, train_net_param"
    )


@pytest.mark.parametrize("field", ["net", "train_net"])
def test_a_missing_net_file_is_named_with_the_folder_it_is_looked_for_in(
    workdir: Path, field: str
) -> None:
    path = write(workdir, f'{field}: "lenet.prototxt"')
    assert refusal(read_train_net, path, read_solver(path)) == (
        f"{path}: {field}: there is no file lenet.prototxt (Caffe reads it relative to the working "
        f"directory, {workdir})"
    )


def test_a_net_path_is_relative_to_the_working_directory_not_to_the_solver(workdir: Path) -> None:
    (workdir / "deep").mkdir()
    path = write(workdir / "deep", 'net: "net.prototxt"')
    with pytest.raises(UserError, match=r"there is no file net\.prototxt"):
        read_train_net(path, read_solver(path))
    (workdir / "net.prototxt").write_text("name: 'from the working directory'")
    where, net = read_train_net(path, read_solver(path))
    assert (where, net.name) == ("net.prototxt", "from the working directory")


@pytest.mark.parametrize("field", ["net_param", "train_net_param"])
def test_old_layers_inside_a_solver_file_are_refused(tmp_path: Path, field: str) -> None:
    path = write(tmp_path, f"{field} {{ layers {{ name: 'x' }} }}")
    assert refusal(read_train_net, path, read_solver(path)) == (
        f"{path}: {field}: uses the old 'layers {{ }}' format; put the net into a file of its own "
        "and upgrade it with 'upgrade_net_proto_text OLD.prototxt NEW.prototxt'"
    )


@pytest.mark.parametrize(
    ("enum", "type_name"),
    [("SGD", "SGD"), ("NESTEROV", "Nesterov"), ("ADAGRAD", "AdaGrad"), ("RMSPROP", "RMSProp"),
     ("ADADELTA", "AdaDelta"), ("ADAM", "Adam"), (5, "Adam")],
)  # fmt: skip
def test_the_deprecated_solver_type_is_upgraded_as_caffe_upgrades_it(
    workdir: Path, enum: Any, type_name: str
) -> None:
    settings = SETTINGS.replace("momentum: 0.9\n", "")
    path = write(workdir, f'net: "net.prototxt" solver_type: {enum}', settings)
    solver = read_solver(path)
    assert solver.type == type_name
    assert type(caffe.get_solver(str(path))).__name__ == f"{type_name}Solver"
    assert not solver.HasField("solver_type")


def test_both_type_and_solver_type_are_refused_as_caffe_refuses_them(tmp_path: Path) -> None:
    path = write(tmp_path, 'net: "net.prototxt" solver_type: SGD type: "SGD"')
    said = refusal(read_solver, path)
    assert said == f"{path}: has both 'type' and the deprecated 'solver_type'; keep 'type'"
    assert "cannot be both specified" in caffe_train(path).stderr


def test_an_average_loss_that_caffe_refuses_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'net: "a" average_loss: 0')
    assert refusal(read_solver, path) == f"{path}: average_loss: got 0; expected 1 or more"


@pytest.mark.parametrize("name", ["solver.prototxt", "deep/lenet.v2.prototxt", "bare"])
@pytest.mark.parametrize("prefix", [None, "", "out", "out/", "out/name", "name.with.dots", "."])
def test_snapshots_go_where_those_of_the_stock_file_go(
    workdir: Path, name: str, prefix: Optional[str]
) -> None:
    for folder in ("out", "deep"):
        (workdir / folder).mkdir()
    (workdir / "net.prototxt").write_text(SMALL)
    source = Path(name)
    given = "" if prefix is None else f'snapshot_prefix: "{prefix}"'
    source.write_text(f'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" {given}')
    caffe.get_solver(str(source)).snapshot()
    written = sorted(str(path) for path in Path().rglob("*_iter_0*"))
    assert len(written) == 2
    prefix_completed = read_solver(source).snapshot_prefix
    ends = ("_iter_0.caffemodel", "_iter_0.solverstate")
    assert [str(Path(prefix_completed + end)) for end in ends] == written
