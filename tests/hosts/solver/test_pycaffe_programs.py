"""The drop-in solver in programs that were written for pycaffe's solvers."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Dict, List

import caffe
import numpy as np
import pytest
from helpers.hosts import Make
from helpers.nets import RULES_OF_CAFFE, write_solver
from helpers.solvers import native, snapshot_name

import caffe_pysgd
from caffe_pysgd import UserError, get_solver


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_a_class_refuses_a_file_of_another_type(workdir: Path, rule: str) -> None:
    path = write_solver(workdir, type=rule, **RULES_OF_CAFFE[rule])
    other = "SGD" if rule != "SGD" else "Adam"
    said = f"type: got '{rule}'; expected '{other}' .{other}Solver."
    with pytest.raises(UserError, match=said):
        getattr(caffe_pysgd, f"{other}Solver")(path)
    assert get_solver(path).param.type == rule


@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_the_classes_are_related_as_those_of_pycaffe(workdir: Path, rule: str) -> None:
    path = write_solver(workdir, type=rule, **RULES_OF_CAFFE[rule])
    stock, ours = type(native(path)), type(get_solver(path))
    assert ours is getattr(caffe_pysgd, stock.__name__)
    names = [cls.__name__ for cls in stock.__mro__]
    assert [cls.__name__ for cls in ours.__mro__[:-1]] == names[: names.index("Solver") + 1]
    assert issubclass(caffe_pysgd.AdamSolver, caffe_pysgd.SGDSolver)


def test_a_rule_that_caffe_has_not_is_an_sgd_solvers(workdir: Path) -> None:
    write_solver(workdir)
    (workdir / "run.yaml").write_text("solver: solver.prototxt\nupdate: {rule: lion}\n")
    assert isinstance(get_solver(workdir / "run.yaml"), caffe_pysgd.SGDSolver)


def test_a_class_of_a_programs_own_is_of_its_type(workdir: Path) -> None:
    class Mine(caffe_pysgd.SGDSolver):
        steps = 0

        def step(self, iterations: int) -> None:
            self.steps += iterations
            super().step(iterations)

    solver = Mine(str(write_solver(workdir)))
    solver.step(2)
    assert (type(solver), solver.steps, solver.iter) == (Mine, 2, 2)


def test_paths_may_be_bytes_as_in_pycaffe(workdir: Path, make: Make) -> None:
    path = write_solver(workdir, max_iter=3)
    assert caffe.get_solver(bytes(path)).iter == 0
    solver = make(bytes(path))
    solver.step(2)
    solver.snapshot()
    solver.solve(bytes(snapshot_name(path, 2)))
    assert solver.iter == 3


@pytest.mark.parametrize("number", [2.0, "2", None, np.float32(2)])
def test_a_number_of_iterations_that_is_none_is_a_type_error(
    workdir: Path, make: Make, number: Any
) -> None:
    path = write_solver(workdir)
    for solver in (native(path), make(path)):
        with pytest.raises(TypeError):
            solver.step(number)
        assert solver.iter == 0


NOTEBOOK = """
import numpy as np

caffe.set_mode_cpu()
solver = SGDSolver("examples/mnist/notebook_solver.prototxt")

# each output is (batch size, feature dim, spatial dim)
shapes = [(k, v.data.shape) for k, v in solver.net.blobs.items()]
filters = [(k, v[0].data.shape) for k, v in solver.net.params.items()]

solver.net.forward()
solver.test_nets[0].forward()
first_digits = solver.net.blobs["data"].data[:8, 0].copy()
first_labels = solver.test_nets[0].blobs["label"].data[:8].copy()

solver.step(1)
first_update = solver.net.params["conv1"][0].diff[:, 0].reshape(4, 5, 5, 5).copy()

niter, test_interval = 12, 5
train_loss = np.zeros(niter)
test_acc = np.zeros(int(np.ceil(niter / test_interval)))
output = np.zeros((niter, 8, 10))
for it in range(niter):
    solver.step(1)
    train_loss[it] = solver.net.blobs["loss"].data
    solver.test_nets[0].forward(start="conv1")
    output[it] = solver.test_nets[0].blobs["ip2"].data[:8]
    if it % test_interval == 0:
        correct = 0
        for test_it in range(3):
            solver.test_nets[0].forward()
            correct += sum(solver.test_nets[0].blobs["ip2"].data.argmax(1)
                           == solver.test_nets[0].blobs["label"].data)
        test_acc[it // test_interval] = correct / 3e2
last_filters = solver.net.params["conv1"][0].data[:, 0].copy()
done = solver.iter
"""


def test_a_notebooks_program_runs_with_only_its_import_changed(
    mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mnist)
    text = Path("examples/mnist/lenet_solver.prototxt").read_text()
    Path("examples/mnist/notebook_solver.prototxt").write_text(text)
    assert "random_seed" in text
    found: List[Dict[str, Any]] = []
    for line in ("from caffe import SGDSolver", "from caffe_pysgd import SGDSolver"):
        names: Dict[str, Any] = {}
        exec(f"import caffe\n{line}\n{NOTEBOOK}", names)
        names.pop("solver")
        gc.collect()
        found.append(names)
    stock, ours = found
    assert stock["SGDSolver"] is not ours["SGDSolver"]
    assert ours["done"] == stock["done"] == 13
    for name in ("shapes", "filters"):
        assert ours[name] == stock[name]
    for name in ("first_digits", "first_labels", "first_update", "train_loss", "test_acc",
                 "output", "last_filters"):  # fmt: skip
        assert stock[name].any()
        assert ours[name].tobytes() == stock[name].tobytes(), name
