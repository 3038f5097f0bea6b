"""Where the parameters layer owns the parameters: what Caffe still walks over, and what it logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import caffe
import pytest
from helpers.nets import NETS, SMALL, write_solver
from helpers.runs import Both, caffe_train, same_weights, weights_of

from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.solver_file import read_solver


def owns(solver: Path) -> bool:
    net = read_net(Path(read_solver(solver).net))
    kinds: List[str] = [layer.python_param.layer for layer in net.layer]
    assert "Parameters" in (kinds[1], kinds[-2])
    return kinds[1] == "Parameters"


def test_a_run_without_a_seed_owns_them_only_where_nobody_else_gives_one(workdir: Path) -> None:
    run = resolve(write_solver(workdir, random_seed=-1))
    assert not owns(write_injected(run, workdir / "anywhere"))
    assert owns(write_injected(run, workdir / "binary", in_binary=True))


@pytest.mark.parametrize("fields", [{}, {"snapshot_format": "HDF5"}, {"debug_info": True}])
def test_they_are_shared_where_caffe_indexes_them_by_their_owners(
    workdir: Path, fields: Dict[str, Any]
) -> None:
    run = resolve(write_solver(workdir, **fields))
    assert owns(write_injected(run, workdir / "run")) == (not fields)


def test_they_are_shared_where_a_layer_writes_a_file(workdir: Path) -> None:
    writer = f"""layer {{ name: "writer" type: "HDF5Output" bottom: "conv" bottom: "conv"
      hdf5_output_param {{ file_name: "{workdir}/out.h5" }} }}
    """
    run = resolve(write_solver(workdir, SMALL + writer))
    assert not owns(write_injected(run, workdir / "run"))


def test_they_are_shared_where_a_layer_has_a_net_of_its_own(workdir: Path) -> None:
    recurrent = """
      layer { name: "cont" type: "DummyData" top: "cont"
        dummy_data_param { shape { dim: 3 dim: 2 } data_filler { type: "constant" value: 1 } } }
      layer { name: "sequence" type: "Reshape" bottom: "out" top: "sequence"
        reshape_param { shape { dim: 3 dim: 2 dim: -1 } } }
      layer { name: "lstm" type: "LSTM" bottom: "sequence" bottom: "cont" top: "lstm"
        recurrent_param { num_output: 2 weight_filler { type: "uniform" } } }
    """
    run = resolve(write_solver(workdir, SMALL + recurrent))
    assert not owns(write_injected(run, workdir / "run"))


def test_caffe_walks_over_one_value_of_each(workdir: Path) -> None:
    both = Both.write(write_solver(workdir))
    solver = caffe.get_solver(str(both.ours))
    solver.step(1)
    diffs = [solver.net.params[p.layer][p.index].diff for p in both.run.parameters]
    for diff in diffs:
        diff[...] = 5
    solver.net.clear_param_diffs()
    assert [int((diff == 0).sum()) for diff in diffs] == [1] * len(diffs)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_what_an_exception_left_in_the_gradients_is_cleared(workdir: Path, passes: int) -> None:
    both = Both.write(write_solver(workdir, iter_size=3))
    weights = {}
    for name, path in (("stock", both.stock), ("ours", both.ours)):
        solver = caffe.get_solver(str(path))
        solver.step(2)
        left = [passes]

        def fail(layer: int, last: int = len(solver.net.layers) - 1, left: Any = left) -> None:
            left[0] -= layer == last
            if left[0] == 0:
                raise KeyError("not this time")

        solver.net.before_forward(fail)
        with pytest.raises(KeyError, match="not this time"):
            solver.step(1)
        left[0] = -1
        solver.step(3)
        weights[name] = weights_of(both, solver)
    same_weights(both, weights["stock"], weights["ours"], f"after failing in pass {passes}")


def test_the_log_shows_each_layer_once_and_a_model_no_weight_twice(workdir: Path) -> None:
    both = Both.write(write_solver(workdir, NETS["normalized"], max_iter=2))
    logs = [caffe_train(path).stderr for path in (both.stock, both.ours)]
    native, ours = (log.count("Creating Layer ") for log in logs)
    assert ours == native + 3
    model = caffe.proto.caffe_pb2.NetParameter()
    model.ParseFromString((both.ours.parent / "snap_iter_2.caffemodel").read_bytes())
    blobs = {layer.name: len(layer.blobs) for layer in model.layer}
    assert blobs["pysgd_parameters"] == 0
