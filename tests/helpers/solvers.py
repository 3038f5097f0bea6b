"""Solvers driven from Python: the native one first, then ours, compared on bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import caffe
import numpy as np

from caffe_pysgd.stock.snapshots import read_model, read_solver_state
from caffe_pysgd.update.bits import Comparison, compare
from helpers.hosts import Make
from helpers.nets import RULES_OF_CAFFE, SMALL, STAGED, write_solver
from helpers.runs import assert_same_bits

Weights = Dict[str, np.ndarray]

SUFFIX = {"BINARYPROTO": "", "HDF5": ".h5"}

# Every rule in one format, one with one slot and one with two in the other.
RULES_AND_FORMATS = [(rule, "BINARYPROTO") for rule in RULES_OF_CAFFE]
RULES_AND_FORMATS += [("Nesterov", "HDF5"), ("Adam", "HDF5")]

STATES = """
train_state { stage: "wide" }
test_state { stage: "first" } test_state { stage: "second" }
"""

# A folder for Caffe, a folder for us: snapshots of the same name do not meet.
FOLDERS = ("stock", "ours")


def write_pair(workdir: Path, net: str = SMALL, text: str = "", **fields: Any) -> Tuple[Path, Path]:
    """Write the same solver into two folders, with snapshots of its own in each."""
    paths = []
    for name in FOLDERS:
        (workdir / name).mkdir(exist_ok=True)
        path = write_solver(workdir / name, net, **fields)
        path.write_text(path.read_text() + text)
        paths.append(path)
    return paths[0], paths[1]


def write_staged_pair(workdir: Path, **fields: Any) -> Tuple[Path, Path]:
    """Write the net with stages and its two test nets."""
    tests = {"test_iter": [2, 3], "test_interval": 3}
    return write_pair(workdir, STAGED, STATES, **{**tests, **fields})


def native(path: Any) -> Any:
    return caffe.get_solver(str(path))


def weights_of(solver: Any) -> Weights:
    """Return copies of all parameters, BatchNorm's statistics included."""
    return weights_in(solver.net)


def weights_in(net: Any) -> Weights:
    return {
        f"{layer}/{index}": np.array(blob.data).ravel()
        for layer, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    }


def bits(weights: Weights) -> Dict[str, bytes]:
    return {name: values.tobytes() for name, values in weights.items()}


def same(expected: Weights, found: Weights, when: str) -> None:
    assert list(expected) == list(found)
    assert_same_bits([compare(f"{n} {when}", expected[n], found[n]) for n in expected])


def same_test_nets(stock: Any, ours: Any) -> None:
    """Compare the weights that the two test nets of a staged solver have."""
    assert len(stock.test_nets) == len(ours.test_nets) == 2
    for number, nets in enumerate(zip(stock.test_nets, ours.test_nets)):
        same(*map(weights_in, nets), f"in test net {number}")


def trail(solver: Any, iterations: int) -> List[Weights]:
    """Step one by one; return the weights after every iteration."""
    weights = []
    for _ in range(iterations):
        solver.step(1)
        weights.append(weights_of(solver))
    assert iterations == 1 or bits(weights[0]) != bits(weights[-1])
    return weights


def same_trails(expected: List[Weights], found: List[Weights]) -> None:
    assert len(expected) == len(found)
    for iteration, (stock, ours) in enumerate(zip(expected, found)):
        same(stock, ours, f"after iteration {iteration}")


def follow(stock: Path, ours: Path, make: Make, iterations: int) -> Tuple[Any, Any]:
    """Step both, one after the other; 0 differing weights after every iteration."""
    first = native(stock)
    expected = trail(first, iterations)
    second = make(str(ours))
    same_trails(expected, trail(second, iterations))
    assert second.iter == first.iter
    return first, second


def snapshot_name(solver: Path, iteration: int, suffix: str = "") -> Path:
    """Return the ``.solverstate`` that a solver file's run leaves."""
    return solver.parent / f"{solver.stem}_iter_{iteration}.solverstate{suffix}"


def snapshot_after(solver: Path, iterations: int, make: Make = native, suffix: str = "") -> Path:
    """Train a solver file that far and snapshot; return the ``.solverstate``."""
    trained = make(solver)
    trained.step(iterations)
    trained.snapshot()
    return snapshot_name(solver, iterations, suffix)


def names_beside(solver: Path) -> List[str]:
    """Return what lies beside a solver file: no snapshot more or less than Caffe's."""
    return sorted(path.name for path in solver.parent.iterdir())


def same_snapshots(stock: Path, ours: Path, moved: bool = True) -> None:
    """Compare two snapshots: state, history and model, value by value."""
    expected, found = read_solver_state(stock), read_solver_state(ours)
    assert found.iteration == expected.iteration
    assert found.current_step == expected.current_step
    assert found.learned_net.name == expected.learned_net.name
    assert len(found.history) == len(expected.history) > 0
    if moved:
        assert any(blob.any() for blob in found.history)
    pairs = [
        compare(f"history {number}", *both)
        for number, both in enumerate(zip(expected.history, found.history))
    ]
    assert_same_bits(pairs + same_models(expected.learned_net, found.learned_net))


def same_models(stock: Path, ours: Path) -> List[Comparison]:
    models = [read_model(stock), read_model(ours)]
    assert list(models[0]) == list(models[1])
    for layer, blobs in models[0].items():
        assert len(blobs) == len(models[1][layer])
    return [
        compare(f"{layer}/{index}", *both)
        for layer in models[0]
        for index, both in enumerate(zip(models[0][layer], models[1][layer]))
    ]


def everything(solver: Any) -> Tuple[Any, ...]:
    """Return what must not change when something is refused: weights, history, iteration, step."""
    states = [
        {slot: values.tobytes() for slot, values in state.items()}
        for state in solver.updater.states
    ]
    return bits(weights_of(solver)), states, solver.iter, solver.updater.current_step
