"""The learnable parameters as found for injection: Caffe's own, in Caffe's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import caffe
import pytest
from helpers.failures import refusal
from helpers.nets import DATA, NETS, write_solver
from helpers.runs import Both, step_both

from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.learnable import LearnableParameter


def fully_connected(name: str, bottom: str, *params: str, outputs: int = 3) -> str:
    """Return an InnerProduct layer with the ``param`` entries given."""
    entries = " ".join(f"param {{ {param} }}" for param in params)
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {entries} '
        f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}'
    )


def loss(bottom: str) -> str:
    return f'layer {{ name: "loss" type: "EuclideanLoss" bottom: "{bottom}" bottom: "target" }}'


def net_of(*layers: str, last: str = "out") -> str:
    return "\n".join([DATA, *layers, loss(last)])


DEEP = (fully_connected("a", "data"), fully_connected("b", "a"), fully_connected("out", "b"))
PYTHON_LAYER = """
import caffe, numpy as np

class Gain(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1, 3)
        self.blobs[0].data[...] = [[1, 2, 3]]
        self.blobs.add_blob(3)
        self.blobs[1].data[...] = 0
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data + self.blobs[1].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        self.blobs[1].diff[...] += top[0].diff.sum(0)
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data
"""

ODD = {
    "no param entries": net_of(*DEEP),
    "a partial param": net_of(fully_connected("out", "data", "lr_mult: 3")),
    "an empty param": net_of(fully_connected("out", "data", "", "lr_mult: 0.1 decay_mult: 7")),
    "multipliers said by the owner": net_of(
        fully_connected("a", "data"),
        fully_connected("b", "a", 'name: "w" lr_mult: 3', 'name: "b" decay_mult: 40'),
        fully_connected("out", "b", 'name: "w"', 'name: "b"'),
    ),
    "multipliers said by a sharer only": net_of(
        fully_connected("a", "data"),
        fully_connected("b", "a", 'name: "w"', 'name: "b" lr_mult: 2'),
        fully_connected("c", "b", 'name: "w" lr_mult: 3', 'name: "b" decay_mult: 40'),
        fully_connected("out", "c", 'name: "w" decay_mult: 20', 'name: "b" lr_mult: 2'),
    ),
    "a shared weight with biases of their own": net_of(
        fully_connected("a", "data"),
        fully_connected("b", "a", 'name: "w"'),
        fully_connected("out", "b", 'name: "w" share_mode: STRICT', "lr_mult: 2"),
    ),
    "a shared bias with weights of their own": net_of(
        fully_connected("a", "data", "lr_mult: 2", 'name: "b"'),
        fully_connected("out", "a", "", 'name: "b" lr_mult: 3'),
    ),
    "shared with another shape": net_of(
        fully_connected("a", "data", outputs=2),
        fully_connected("b", "a", 'name: "w"', outputs=3),
        fully_connected("c", "b", 'name: "w" share_mode: PERMISSIVE lr_mult: 2', outputs=2),
        fully_connected("out", "c"),
    ),
    "shared within one layer": net_of(
        fully_connected("a", "data"),
        'layer { name: "out" type: "Scale" bottom: "a" top: "out" scale_param { bias_term: true } '
        'param { name: "both" } param { name: "both" lr_mult: 2 } }',
    ),
    "frozen layers": net_of(
        fully_connected("a", "data", "lr_mult: 0", "lr_mult: 0"),
        fully_connected("b", "a", "lr_mult: 0 decay_mult: 0"),
        fully_connected("out", "b"),
    ),
    "a frozen parameter that is shared": net_of(
        fully_connected("a", "data"),
        fully_connected("b", "a", 'name: "w" lr_mult: 0'),
        fully_connected("out", "b", 'name: "w"'),
    ),
    "BatchNorm that declares params of before Caffe 1.0": net_of(
        'layer { name: "norm" type: "BatchNorm" bottom: "data" top: "norm" '
        "param { lr_mult: 1 } param { lr_mult: 1 } param { decay_mult: 3 } }",
        fully_connected("out", "norm"),
    ),
    "BatchNorm that declares one param": net_of(
        'layer { name: "norm" type: "BatchNorm" bottom: "data" top: "norm" param { lr_mult: 0 } }',
        fully_connected("out", "norm"),
    ),
    "a user's parameter called like another's display name": net_of(
        fully_connected("a", "data"),
        fully_connected("b", "a", 'name: "a/0"', 'name: "pysgd/a/1"'),
        fully_connected("pysgd/a", "b"),
        fully_connected("out", "pysgd/a", 'name: "b/0"', 'name: "out/0"'),
    ),
    "LSTM": """
        layer { name: "data" type: "DummyData" top: "data" top: "cont" top: "target"
          dummy_data_param { shape { dim: 4 dim: 2 dim: 3 } shape { dim: 4 dim: 2 }
            shape { dim: 4 dim: 2 dim: 5 }
            data_filler { type: "gaussian" } data_filler { value: 1 }
            data_filler { type: "gaussian" } } }
        layer { name: "lstm" type: "LSTM" bottom: "data" bottom: "cont" top: "out"
          recurrent_param { num_output: 5 weight_filler { type: "uniform" min: -1 max: 1 } } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" }""",
    "an input of before Caffe 1.0": 'input: "unused" input_shape { dim: 1 }' + net_of(*DEEP),
    "a user's own Python layer": net_of(
        fully_connected("a", "data"),
        'layer { name: "out" type: "Python" bottom: "a" top: "out" param { lr_mult: 2 } '
        'python_param { module: "gain_layer" layer: "Gain" } }',
    ),
    **NETS,
}


@pytest.fixture
def gain_layer(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = workdir / "modules"
    modules.mkdir()
    (modules / "gain_layer.py").write_text(PYTHON_LAYER)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.syspath_prepend(str(modules))


def found_in(workdir: Path, net: str) -> List[LearnableParameter]:
    return resolve(write_solver(workdir, net)).parameters


def multipliers(parameters: List[LearnableParameter]) -> Dict[str, Tuple[float, float]]:
    return {p.name: (p.lr_mult, p.decay_mult) for p in parameters}


def history_shapes(solver_file: Path) -> List[Tuple[int, ...]]:
    """Return the shapes in the ``.solverstate`` that a stock solver writes."""
    solver = caffe.get_solver(str(solver_file))
    solver.snapshot()
    prefix = solver_file.with_suffix("")
    content = Path(f"{prefix}_iter_0.solverstate").read_bytes()
    state = pycaffe.messages().SolverState.FromString(content)
    return [tuple(blob.shape.dim) for blob in state.history]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.usefixtures("gain_layer")
def test_the_order_is_that_of_the_native_history_and_training_has_the_native_bits(
    workdir: Path, name: str
) -> None:
    source = write_solver(workdir, ODD[name], weight_decay=0.1, base_lr=0.001)
    both = Both.write(source)
    assert [p.shape for p in both.run.parameters] == history_shapes(source)
    assert all(len(p.shape) > 0 for p in both.run.parameters)
    step_both(both, 3)


def test_multipliers_are_1_where_nothing_is_said(workdir: Path) -> None:
    found = multipliers(found_in(workdir, ODD["an empty param"]))
    assert found == {"out/0": (1, 1), "out/1": (pytest.approx(0.1), 7)}


def test_a_sharer_says_the_multipliers_that_the_owner_left_unsaid(workdir: Path) -> None:
    found = multipliers(found_in(workdir, ODD["multipliers said by a sharer only"]))
    assert found == {"a/0": (1, 1), "a/1": (1, 1), "b/0": (3, 20), "b/1": (2, 40)}


def test_batch_norm_freezes_its_statistics_itself(workdir: Path) -> None:
    found = found_in(workdir, NETS["normalized"])
    statistics = {p.name: p.lr_mult for p in found if "norm/" in p.name}
    assert statistics == {f"{layer}/{i}": 0 for layer in ("norm", "old_norm") for i in range(3)}


def test_two_included_layers_of_one_name_with_weights_are_refused(workdir: Path) -> None:
    first = fully_connected("a", "data").replace('top: "a"', 'top: "x"')
    net = net_of(first, fully_connected("a", "x"), fully_connected("out", "a"))
    refused(workdir, net)


def test_a_layer_that_has_the_name_of_one_with_weights_is_refused(workdir: Path) -> None:
    relu = 'layer { name: "a" type: "ReLU" bottom: "a" top: "a" }'
    refused(workdir, net_of(fully_connected("a", "data"), relu, fully_connected("out", "a")))


def refused(workdir: Path, net: str) -> None:
    assert refusal(found_in, workdir, net) == (
        f"{workdir}/solver_net.prototxt: two layers are called 'a'; Caffe copies weights by layer "
        "name, so give them different names"
    )


def test_layers_without_weights_may_share_a_name(workdir: Path) -> None:
    relu = 'layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }'
    net = net_of(fully_connected("a", "data"), relu, relu, fully_connected("out", "a"))
    assert [p.name for p in found_in(workdir, net)] == ["a/0", "a/1", "out/0", "out/1"]


def test_a_net_without_anything_to_learn_is_refused(workdir: Path) -> None:
    assert refusal(found_in, workdir, DATA) == (
        f"{workdir}/solver_net.prototxt: the train net has no learnable parameters"
    )


BROKEN = {
    "Unknown bottom blob 'nothing' (layer 'a', bottom index 0)": fully_connected("a", "nothing"),
    "Check failed: registry.count(type) == 1 (0 vs. 1) Unknown layer type: InerProduct": (
        fully_connected("a", "data").replace("InnerP", "InerP")
    ),
    "Shared param 'w' has mismatched lr_mult.": fully_connected("a", "data", 'name: "w" lr_mult: 1')
    + fully_connected("b", "data", 'name: "w" lr_mult: 2'),
    "Too many params specified for layer a": fully_connected("a", "data", "", "", ""),
    "Cannot share param 'w' owned by layer 'a' with layer 'b'; shape mismatch.": (
        fully_connected("a", "data", 'name: "w"') + fully_connected("b", "a", 'name: "w"')
    ),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_net_that_caffe_cannot_build_is_refused_with_caffes_reason(
    workdir: Path, reason: str
) -> None:
    said = refusal(found_in, workdir, net_of(BROKEN[reason], last="a"))
    assert said.startswith(f"{workdir}/solver.prototxt: Caffe cannot build its nets: Caffe says:")
    assert reason in said


def python_layer(module: str) -> str:
    return (
        'layer { name: "mine" type: "Python" bottom: "data" top: "out" '
        f'python_param {{ module: "{module}" layer: "Mine" }} }}'
    )


def test_a_python_layer_that_fails_is_refused_with_its_exception(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "failing.py").write_text(
        "import caffe\nclass Mine(caffe.Layer):\n"
        "    def setup(self, bottom, top):\n        raise ValueError('no such table')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(workdir))
    said = refusal(found_in, workdir, net_of(python_layer("failing")))
    assert said.endswith("Caffe cannot build its nets: Caffe ended with: ValueError: no such table")


def test_modules_are_found_as_in_caffe_train_not_in_the_working_directory(workdir: Path) -> None:
    (workdir / "mine.py").write_text("import caffe\nclass Mine(caffe.Layer):\n    pass\n")
    said = refusal(found_in, workdir, net_of(python_layer("mine")))
    assert said.endswith("Caffe ended with: ModuleNotFoundError: No module named 'mine'")


@pytest.mark.parametrize("module", ["random", "numpy", "caffe", "json"])
def test_a_file_in_the_working_directory_does_not_stand_in_for_a_module(
    workdir: Path, module: str
) -> None:
    (workdir / f"{module}.py").write_text("raise SystemExit('the wrong module')")
    assert [p.name for p in found_in(workdir, net_of(fully_connected("out", "data")))] == [
        "out/0", "out/1",
    ]  # fmt: skip


def test_nothing_is_left_behind(workdir: Path, tmp_path_factory: Any, monkeypatch: Any) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    source = write_solver(workdir, net_of(*DEEP))
    before = sorted(workdir.iterdir())
    resolve(source)
    assert sorted(workdir.iterdir()) == before
    assert not list(temporary.iterdir())
