"""Reading Caffe's own snapshots, binary and HDF5, and refusing what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Tuple

import caffe
import numpy as np
import pytest
from helpers.failures import refusal_of_file
from helpers.nets import DATA, NETS, SMALL, write_solver

from caffe_pysgd.stock import pycaffe, wire
from caffe_pysgd.stock.helper import Outcome
from caffe_pysgd.stock.snapshots import read_model, read_solver_state

MODEL, STATE = "model (.caffemodel)", "solver state (.solverstate)"

# The second layer shares the first one's weights and has a bias of its own.
PARTLY_SHARED = (
    DATA
    + """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" param { name: "w" } param { lr_mult: 2 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "target" }
"""
)


def trained(directory: Path, format: str, net: str = SMALL, **fields: Any) -> Any:
    """Train a little with pycaffe and snapshot; return the solver."""
    source = write_solver(directory, net, name=format, snapshot_format=format, **fields)
    solver = caffe.get_solver(str(source))
    solver.step(3)
    solver.snapshot()
    return solver


def files(directory: Path, format: str) -> List[Path]:
    end = ".h5" if format == "HDF5" else ""
    return [directory / f"{format}_iter_3.{kind}{end}" for kind in ("caffemodel", "solverstate")]


@pytest.mark.parametrize("format", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("net", [*NETS.values(), PARTLY_SHARED], ids=[*NETS, "partly shared"])
def test_a_model_holds_the_weights_of_the_solver_bit_for_bit(
    tmp_path: Path, net: str, format: str
) -> None:
    solver = trained(tmp_path, format, net)
    model = read_model(files(tmp_path, format)[0])
    assert solver.net.params
    for layer, blobs in solver.net.params.items():
        found = model[layer]
        for index, blob in enumerate(blobs):
            if index < len(found) and found[index].size:
                assert found[index].dtype == np.float32
                assert found[index].tobytes() == blob.data.tobytes()
            else:  # HDF5 keeps a shared blob with its owner only
                assert format == "HDF5"
                assert layer in ("right", "c")


@pytest.mark.parametrize("net", [SMALL, PARTLY_SHARED], ids=["small", "partly shared"])
def test_binary_and_hdf5_snapshots_of_one_run_read_equal(tmp_path: Path, net: str) -> None:
    fields = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 2]}
    states = []
    for format in ("BINARYPROTO", "HDF5"):
        trained(tmp_path, format, net, **fields)
        model, state = files(tmp_path, format)
        states.append(read_solver_state(state))
        assert states[-1].learned_net == model
    binary, hdf5 = states
    assert binary.iteration == hdf5.iteration == 3
    assert binary.current_step == hdf5.current_step == 2
    assert len(binary.history) == len(hdf5.history) > 0
    assert any(history.any() for history in binary.history)
    for one, other in zip(binary.history, hdf5.history):
        assert one.dtype == other.dtype == np.float32
        assert one.tobytes() == other.tobytes()


def test_history_of_more_than_ten_blobs_keeps_its_order_in_hdf5(tmp_path: Path) -> None:
    layers = [
        f'layer {{ name: "l{n}" type: "InnerProduct" bottom: "{bottom}" top: "l{n}" '
        f'inner_product_param {{ num_output: {n + 2} weight_filler {{ type: "xavier" }} }} }}'
        for n, bottom in enumerate(["data", *[f"l{n}" for n in range(6)]])
    ]
    loss = 'layer { name: "loss" type: "Reduction" bottom: "l6" top: "loss" loss_weight: 1 }'
    trained(tmp_path, "HDF5", "\n".join([DATA, *layers, loss]))
    history = read_solver_state(files(tmp_path, "HDF5")[1]).history
    sizes = [(n + 2) * before for n, before in enumerate([98, 2, 3, 4, 5, 6, 7])]
    assert [blob.size for blob in history[::2]] == sizes
    assert [blob.size for blob in history[1::2]] == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("format", ["BINARYPROTO", "HDF5"])
def test_a_model_is_no_solver_state_and_a_solver_state_no_model(
    tmp_path: Path, format: str
) -> None:
    trained(tmp_path, format)
    model, state = files(tmp_path, format)
    assert refusal_of_file(read_solver_state, model) == f": is not a complete Caffe {STATE}"
    assert refusal_of_file(read_model, state) == f": is not a complete Caffe {MODEL}"


@pytest.mark.parametrize("format", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.97])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, format: str, part: float) -> None:
    trained(tmp_path, format)
    for path, read in zip(files(tmp_path, format), (read_model, read_solver_state)):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])
        assert refusal_of_file(read, path).startswith(": is not a complete Caffe ")  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [read_model, read_solver_state])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"no protobuf at all\n", b"\x89HDF\r\n\x1a\n", bytes(range(256))],
    ids=["nothing", "zeros", "text", "a head of HDF5", "all bytes"],
)
def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, content: bytes, read: Callable[[Path], Any]
) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(content)
    assert refusal_of_file(read, path).startswith(": is not a complete Caffe ")


NOTE = b'{"rule": "sgd", "names": ["history of a/0"]}'
BLOB = {"data": [1.0], "shape": {"dim": [1]}}
ONCE_FAILED = {
    "both kinds of layers": ("NetParameter", {"layer": [{"blobs": [BLOB]}], "layers": [{}]}),
    "a required field": ("NetParameter", {"layer": [{"blobs": [BLOB], "clip_param": {}}]}),
    "two kinds of data": ("NetParameter", {"layer": [{"blobs": [{**BLOB, "double_data": [1]}]}]}),
    "a shape below 0": ("NetParameter", {"layer": [{"blobs": [{"shape": {"dim": [-1]}}]}]}),
    "a huge shape": ("NetParameter", {"layer": [{"blobs": [{"shape": {"dim": [2**31 - 1]}}]}]}),
    "no data": ("NetParameter", {"layer": [{"blobs": [{"shape": {"dim": [1]}}]}]}),
    "an iteration below 0": ("SolverState", {"iter": -1, "history": [BLOB]}),
    "a step below 0": ("SolverState", {"iter": 1, "current_step": -1}),
    "a name with a NUL": ("SolverState", {"iter": 1, "learned_net": "a\0b"}),
}


@pytest.mark.parametrize("kind, fields", ONCE_FAILED.values(), ids=ONCE_FAILED)
def test_a_file_that_once_ended_caffe_is_refused(tmp_path: Path, kind: str, fields: Any) -> None:
    path, read = tmp_path / "snapshot", read_model if kind == "NetParameter" else read_solver_state
    message = getattr(pycaffe.messages(), kind)(**fields)
    path.write_bytes(message.SerializePartialToString())
    assert refusal_of_file(read, path).count("\n") == 0


@pytest.mark.parametrize("note", [b"{", b"[]", b"3", b"\xff", b'{"rule": 3}', b"[" * 9999, NOTE])
def test_a_note_that_is_none_or_too_short_is_refused(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "snapshot"
    state = pycaffe.messages().SolverState(iter=1, history=[BLOB, BLOB])
    path.write_bytes(state.SerializeToString() + wire.field(2000, note))
    assert "is not a complete Caffe" in refusal_of_file(read_solver_state, path)


def _h5_with(path: Path, name: str, value: Any) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["data/conv/0"] = np.ones(3, np.float32)
        if name in file:
            del file[name]
        file[name] = value


@pytest.mark.parametrize(
    "name, value",
    [("data", 1), ("data/conv", 1), ("data/conv/99999999", 1), ("data/conv/x", 1),
     ("data/conv/-1", 1), ("data/conv/0", "text")],
)  # fmt: skip
def test_an_hdf5_model_of_another_structure_is_refused(
    tmp_path: Path, name: str, value: Any
) -> None:
    path = tmp_path / "model.h5"
    _h5_with(path, name, value)
    assert "is not a complete Caffe" in refusal_of_file(read_model, path)


def test_an_hdf5_file_over_which_the_library_dies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, it would end the tests; the helper ends as it would."""
    path = tmp_path / "model.h5"
    _h5_with(path, "data/conv/0", np.ones(3, np.float32))
    assert read_model(path)["conv"][0].tolist() == [1, 1, 1]
    died = Outcome(-11, "")
    monkeypatch.setattr("caffe_pysgd.stock.hdf5_trial.run_with_caffe", lambda *_: died)
    assert "is not a complete Caffe" in refusal_of_file(read_model, path)


def test_one_line_is_one_where_a_text_is_no_utf8(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "model"
    net = pycaffe.messages().NetParameter(name="abcd", layer=[{"name": "a", "blobs": [BLOB]}])
    path.write_bytes(net.SerializeToString().replace(b"abcd", b"\xff\xfe\xfd\xfc"))
    assert read_model(path)["a"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("read", [read_model, read_solver_state])
def test_a_missing_file_and_a_folder_are_refused(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    assert refusal_of_file(read, tmp_path / "no") == ": cannot be read: No such file or directory"
    assert refusal_of_file(read, tmp_path) == ": cannot be read: Is a directory"


def test_a_model_of_before_caffe_1_is_read(tmp_path: Path) -> None:
    messages = pycaffe.messages()
    first = messages.V1LayerParameter(name="conv1")
    first.blobs.add(num=1, channels=2, height=1, width=1, data=[1.5, -2])
    oldest = messages.V1LayerParameter()
    oldest.layer.name = "fc8"
    oldest.layer.blobs.add(data=[3])
    path = tmp_path / "old.caffemodel"
    path.write_bytes(messages.NetParameter(layers=[first, oldest]).SerializeToString())
    model = read_model(path)
    assert {layer: [blob.tolist() for blob in blobs] for layer, blobs in model.items()} == {
        "conv1": [[1.5, -2]],
        "fc8": [[3]],
    }


@pytest.mark.parametrize(
    "pair", [("SGD", "Nesterov"), ("AdaGrad", "RMSProp")], ids=["gradients", "squares"]
)
def test_caffes_own_solver_states_do_not_say_which_solver_took_them(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, pair: Tuple[str, str]
) -> None:
    """Two histories may be the same where the weights are not; the files are the same, too."""
    taken, weights = [], []
    for rule in pair:
        folder = workdir / rule
        folder.mkdir()
        monkeypatch.chdir(folder)
        fields = {"momentum": 0.9 if "SGD" in pair else 0}
        if rule == "RMSProp":
            fields["rms_decay"] = 0
        write_solver(Path(), type=rule, snapshot_prefix="snap", **fields)
        solver = caffe.get_solver("solver.prototxt")
        solver.step(1)
        solver.snapshot()
        assert any(
            blob.any() for blob in read_solver_state(Path("snap_iter_1.solverstate")).history
        )
        taken.append(Path("snap_iter_1.solverstate").read_bytes())
        weights.append(read_model(Path("snap_iter_1.caffemodel"))["hidden"][0].tobytes())
    assert taken[0] == taken[1]
    assert (weights[0] == weights[1]) == (pair[0] == "AdaGrad")
