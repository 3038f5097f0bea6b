"""A prototxt file is read as Caffe reads it: taken, refused and understood alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.nets import SMALL, write_solver
from helpers.runs import Both, assert_same_bits, caffe_train

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock import prototxt as text
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.reader import NoReader, read_as_caffe
from caffe_pysgd.stock.solver_file import read_solver

# What a solver file may say, once more or less well.
SAYINGS = {
    "a sign apart": rb"momentum: - 0.01",
    "a plus": rb"momentum: +0.01",
    "an unknown escape": rb"snapshot_prefix: 'sn\Px'",
    "an escaped question mark": rb"snapshot_prefix: 'sn\?x'",
    "octal and hexadecimal escapes": rb"snapshot_prefix: 's\x41\101\tx'",
    "an escape of Unicode": rb"snapshot_prefix: 'sn\u00e9'",
    "two strings in a row": rb"snapshot_prefix: 'sn' " + rb'"ap"',
    "a string over two lines": b"snapshot_prefix: 'sn\nap'",
    "CRLF and a wrong number": b"momentum: x\r\ngamma: 1\r\n",
    "CRLF": b"momentum: 0.5\r\ngamma: 1\r\n",
    "octal": rb"average_loss: 010",
    "hexadecimal": rb"average_loss: 0x10",
    "a hexadecimal float": rb"momentum: 0x10",
    "a float with f": rb"momentum: 0.5f",
    "too small a float": rb"momentum: 1e-50",
    "a fraction for a whole number": rb"average_loss: 1.5",
    "too large a whole number": rb"average_loss: 99999999999",
    "separators": rb"momentum: 0.5; gamma: 1, power: 2",
    "angle brackets": rb"train_state: < level: 1 >",
    "a list": rb"stepvalue: [1, 2]",
    "a list that ends in a comma": rb"stepvalue: [1, 2,]",
    "a number for an enumeration": rb"snapshot_format: 1",
    "no such number of an enumeration": rb"snapshot_format: 7",
    "bool as t": rb"debug_info: f",
    "an extension": rb"[caffe.x]: 1",
    "a comment in another encoding": b"momentum: 0.5  # \xd1\xa7",
}


def write(workdir: Path, saying: bytes) -> Path:
    fields = {"max_iter": 1}
    if b"momentum" in saying:
        fields["momentum"] = None
    if b"snapshot_prefix" in saying:
        fields["snapshot_prefix"] = None
    source = write_solver(workdir, **fields)
    source.write_bytes(source.read_bytes() + saying + b"\n")
    return source


@pytest.mark.parametrize("saying", SAYINGS)
def test_a_saying_is_taken_refused_and_understood_as_by_stock_caffe(
    workdir: Path, saying: str
) -> None:
    source = write(workdir, SAYINGS[saying])
    # Caffe's own tool reads the file and writes what it understood.
    program = pycaffe.binary().resolve().parent / "upgrade_solver_proto_text"
    understood = workdir / "understood.prototxt"
    stock = subprocess.run(
        [str(program), str(source), str(understood)], capture_output=True, text=True
    )
    try:
        found = read_solver(source)
    except UserError as refused:
        place = str(refused).split(": ")[0].replace(str(source), "")
        assert f"{place[1:]}: " in stock.stderr
        assert stock.returncode != 0
        return
    assert stock.returncode == 0
    assert found == read_solver(understood)


@pytest.mark.parametrize(
    ("name", "layer"), [(rb"'fc\?'", "fc?"), (rb"'f\u00e9'", "f\u00e9"), (b'"it\'s"', "it's")]
)
def test_a_layer_trains_under_the_name_that_caffe_reads(
    workdir: Path, name: bytes, layer: str
) -> None:
    source = write_solver(workdir, SMALL, max_iter=3)
    net = workdir / "solver_net.prototxt"
    net.write_bytes(net.read_bytes().replace(b'name: "out"', b"name: " + name))
    both = Both.write(source)
    assert layer in [parameter.layer for parameter in both.run.parameters]
    for path in (both.stock, both.ours):
        assert caffe_train(path).returncode == 0
    assert_same_bits(both.final())


def test_snapshots_have_the_name_that_caffe_reads(workdir: Path) -> None:
    source = write(workdir, SAYINGS["an escaped question mark"])
    assert caffe_train(write_injected(resolve(source), workdir / "run")).returncode == 0
    assert (workdir / "sn?x_iter_1.caffemodel").exists()


def test_without_caffes_own_reader_pythons_reads_and_says_so_once(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source = write_solver(workdir)
    expected = read_solver(source)
    with pytest.raises(NoReader, match="caffe::NoSuchParameter has no constructor"):
        read_as_caffe(source, "NoSuchParameter")

    def unreachable(path: Path, kind: str) -> bytes:
        return read_as_caffe(path, "NoSuchParameter")

    monkeypatch.setattr(text, "read_as_caffe", unreachable)
    assert read_solver(source) == read_solver(source) == expected
    assert capsys.readouterr().err.count("Python's reads them") == 1
    source.write_bytes(source.read_bytes() + b"\r\nmomentum: x\r\n")
    with pytest.raises(UserError, match=r"prototxt:\d+:11: .*parse float: x"):
        read_solver(source)
    source.write_bytes(b"base_lr: 1\nnet: 'caf\xe9'")
    with pytest.raises(UserError, match=r"prototxt:2:\d+: a string in it is not UTF-8"):
        read_solver(source)
