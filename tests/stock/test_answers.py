"""What Caffe answered is kept, and asked again once anything that it depends on is another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
from helpers.nets import SMALL, write_solver
from helpers.runs import caffe_train

from caffe_pysgd import cache
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock import helper, pycaffe
from caffe_pysgd.stock.answers import _MOST, Question
from caffe_pysgd.stock.files_read import files_read
from caffe_pysgd.stock.protobuf import text_format
from caffe_pysgd.stock.reader import prepare_to_read

STARTED: List[str] = []
sys.addaudithook(
    lambda event, _: STARTED.append(event) if event in ("os.fork", "subprocess.Popen") else None
)

Shapes = Dict[str, Tuple[int, ...]]

HDF5 = (
    SMALL[: SMALL.index("layer {")]
    + """
layer {
  name: "data" type: "HDF5Data" top: "data" top: "target"
  hdf5_data_param { source: "list.txt" batch_size: 2 }
}
layer {
  name: "out" type: "InnerProduct" bottom: "data" top: "out"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }
"""
)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CAFFE_PYSGD_CACHE", str(folder))
    return folder


def start(source: Path = Path("solver.prototxt")) -> Tuple[Shapes, bool]:
    """Resolve a run; return the shapes of its parameters, and whether that took a process."""
    helper._close()  # else it would be asked without being started
    STARTED.clear()
    run = resolve(source)
    return {p.name: p.shape for p in run.parameters}, bool(STARTED)


def write_data(width: int) -> None:
    import h5py

    with h5py.File("data.h5", "w") as file:
        file["data"] = np.ones((4, width), np.float32)
        file["target"] = np.ones((4, 3), np.float32)
    Path("list.txt").write_text("data.h5\n")
    time.sleep(0.15)  # what was written just now may be written again in the same moment


def test_the_second_start_asks_nobody(workdir: Path, own_cache: Path) -> None:
    write_solver(workdir)
    first, asked = start()
    assert asked and first["conv/0"] == (5, 2, 3, 3)
    assert start() == (first, False)
    write_solver(workdir, base_lr=0.5, max_iter=7, momentum=0.1)
    start()  # the solver file is another, and is read by Caffe
    write_solver(workdir, name="other", base_lr=0.5, max_iter=7, momentum=0.1)
    assert start() == (first, False)


def test_caffe_is_loaded_beforehand_where_it_will_be_asked(workdir: Path, own_cache: Path) -> None:
    source = write_solver(workdir)
    for expected in (["subprocess.Popen"], []):
        helper._close()
        STARTED.clear()
        prepare_to_read(source, "SolverParameter")
        assert list(STARTED) == expected
        resolve(source)
    prepare_to_read(workdir / "missing.prototxt", "SolverParameter")


def test_another_net_is_asked_for(workdir: Path, own_cache: Path) -> None:
    write_solver(workdir)
    start()
    write_solver(workdir, SMALL.replace("num_output: 5", "num_output: 6"))
    shapes, asked = start()
    assert asked and shapes["conv/0"] == (6, 2, 3, 3)


def test_a_test_net_in_a_file_of_its_own_is_part_of_the_question(
    workdir: Path, own_cache: Path
) -> None:
    test_net = workdir / "test.prototxt"
    test_net.write_text(SMALL)
    write_solver(workdir, test_net=test_net, test_iter=1, test_interval=10)
    first, asked = start()
    assert asked and start() == (first, False)
    test_net.write_text(SMALL.replace("kernel_size: 3", "kernel_size: 300"))
    with pytest.raises(Exception, match="Caffe cannot build its nets"):
        start()


def test_data_of_another_shape_are_asked_for(workdir: Path, own_cache: Path) -> None:
    write_solver(workdir, HDF5)
    write_data(4)
    first, asked = start()
    assert asked and first["out/0"] == (3, 4)
    assert start() == (first, False)
    write_data(5)
    shapes, asked = start()
    assert asked and shapes["out/0"] == (3, 5)
    os.unlink("data.h5")
    with pytest.raises(Exception, match="Caffe cannot build its nets"):
        start()


def test_what_a_layer_in_python_does_is_asked_each_time(
    workdir: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(workdir))
    (workdir / "gain.py").write_text(
        "import caffe\n"
        "class Gain(caffe.Layer):\n"
        "    def setup(self, bottom, top): self.blobs.add_blob(int(open('size').read()))\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = bottom[0].data\n"
        "    def backward(self, top, down, bottom): pass\n"
    )
    gain = (
        'layer { name: "gain" type: "Python" bottom: "data" top: "gain" '
        'python_param { module: "gain" layer: "Gain" } } layer {\n  name: "conv"'
    )
    net = SMALL.replace('layer {\n  name: "conv"', gain).replace(
        'bottom: "data" top: "conv"', 'bottom: "gain" top: "conv"'
    )
    write_solver(workdir, net)
    for size in (2, 3):
        Path("size").write_text(str(size))
        assert start()[0]["gain/0"] == (size,)


def test_a_damaged_answer_is_asked_for_again(workdir: Path, own_cache: Path) -> None:
    write_solver(workdir)
    first = start()
    kept = list(own_cache.iterdir())
    assert len(kept) == 4  # which Caffe; the solver file, the net file, the built nets
    for file in kept:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert start() == first
    assert start() == (first[0], False)


def test_what_others_can_write_is_not_believed(workdir: Path, own_cache: Path) -> None:
    write_solver(workdir)
    first = start()
    own_cache.chmod(0o777)
    assert start() == first


ANOTHER_CAFFE = """
import sys
from pathlib import Path
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock import helper, pycaffe
resolve(Path("solver.prototxt"))
assert pycaffe.find_library().startswith(sys.argv[1]), pycaffe.find_library()
print("asked" if helper._helper else "kept")
"""


def test_another_caffe_is_asked(workdir: Path, own_cache: Path) -> None:
    write_solver(workdir)
    package = workdir / "path" / "caffe"
    shutil.copytree(Path(pycaffe.find_library()).parent, package)
    time.sleep(0.15)

    def said() -> str:
        return subprocess.run(
            [sys.executable, "-c", ANOTHER_CAFFE, str(package)],
            env={**os.environ, "PYTHONPATH": str(workdir / "path")},
            stdout=subprocess.PIPE, check=True, text=True,
        ).stdout.strip()  # fmt: skip

    assert [said(), said()] == ["asked", "kept"]
    (module,) = package.glob("_caffe*.so")
    os.utime(module)
    time.sleep(0.15)
    assert [said(), said()] == ["asked", "kept"]


def test_a_wrong_answer_ends_the_run_before_a_weight_is_changed(
    cli: Any, workdir: Path, own_cache: Path
) -> None:
    """As it might be after an accident: what was kept of one net, under the name of another."""
    write_solver(workdir, max_iter=2)
    assert cli("train", "solver.prototxt", "--dry-run").returncode == 0
    wrong = [
        file
        for file in own_cache.iterdir()
        if b'"conv"' in file.read_bytes() and b"[5, 2, 3, 3]" in file.read_bytes()
    ]
    assert len(wrong) == 1
    content = wrong[0].read_bytes()[32:].replace(b"[5, 2, 3, 3]", b"[6, 2, 3, 3]")
    assert cache.keep(wrong[0].name, content, replace=True)
    trained = cli("train", "solver.prototxt")
    assert trained.returncode == 2
    assert "conv/0: got the shape (5, 2, 3, 3), expected (6, 2, 3, 3)" in trained.stderr
    assert not list(workdir.glob("*.caffemodel"))


def test_both_starts_have_the_bits_of_stock(cli: Any, workdir: Path, own_cache: Path) -> None:
    source = write_solver(workdir, max_iter=4, snapshot_prefix="weights")
    assert caffe_train(source).returncode == 0
    weights = [Path("weights_iter_4.caffemodel").read_bytes()]
    net = pycaffe.messages().NetParameter.FromString(weights[0])
    stock = {layer.name: [list(blob.data) for blob in layer.blobs] for layer in net.layer}
    for number in (1, 2):
        trained = cli("train", source, f"--run-dir=run{number}")
        assert trained.returncode == 0, trained.stderr
        net.ParseFromString(Path("weights_iter_4.caffemodel").read_bytes())
        own = {layer.name: [list(blob.data) for blob in layer.blobs] for layer in net.layer}
        assert {name: own[name] for name in stock} == stock


@pytest.mark.parametrize(
    ("layer", "files"),
    [
        ('type: "Convolution"', []),
        ('type: "Python"', None),
        ('type: "AnnotatedData"', None),
        ('type: "WindowData"', None),
        ('type: "Data" data_param { source: "db" backend: LMDB }', ["db/data.mdb"]),
        ('type: "Data" data_param { source: "db" backend: LEVELDB }', None),
        ('type: "MemoryData" transform_param { mean_file: "mean" }', ["mean"]),
        ('type: "InfogainLoss"', []),
        ('type: "InfogainLoss" infogain_loss_param { source: "h" }', ["h"]),
        ('type: "HDF5Data" hdf5_data_param { source: "two" }', ["two", "a.h5", "b.h5"]),
        ('type: "HDF5Data" hdf5_data_param { source: "missing" }', None),
        ('type: "ImageData" image_data_param { source: "images" root_folder: "r/" }',
         ["images", "r/a b.png"]),
        ('type: "ImageData" image_data_param { source: "images" shuffle: true }', None),
        ('type: "ImageData" image_data_param { source: "images" rand_skip: 2 }', None),
    ],
)  # fmt: skip
def test_the_files_that_a_layer_reads_are_known_or_known_not_to_be(
    layer: str, files: Any, workdir: Path
) -> None:
    Path("two").write_text("a.h5\nb.h5\n")
    Path("images").write_text("a b.png 3\nc.png 4\n")
    net = pycaffe.messages().NetParameter()
    text_format.Parse(f'layer {{ name: "x" {layer} }}', net)
    assert files_read([net]) == files


def test_no_more_is_kept_than_there_is_room_for(own_cache: Path) -> None:
    for number in range(_MOST + 1):
        Question(files_read, str(number)).keep(json.dumps(number).encode())
    assert 0 < len(list(own_cache.iterdir())) <= _MOST
    assert Question(files_read, str(_MOST)).kept() == str(_MOST).encode()
    assert Question(files_read, "0").kept() is None
    Question(files_read, "large").keep(b"x" * (1 << 19))
    assert Question(files_read, "large").kept() is None
