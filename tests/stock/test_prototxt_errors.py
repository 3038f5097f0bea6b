"""Solver and net files that do not read: one line with the file, the line and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from helpers.failures import refusal_of_file
from helpers.places import PROJECT

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.prototxt import read_text, to_text
from caffe_pysgd.stock.solver_file import read_solver


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "net: 'a'\nbase_ir: 1",
            ":2:8: SolverParameter has no field 'base_ir'; did you mean 'base_lr'?",
        ),
        (
            "net: 'a'\nzzzzzz: 1",
            ":2:7: SolverParameter has no field 'zzzzzz'; see caffe.proto for its fields",
        ),
        (
            "net: 'a'\ntrain_state {\n  levl: 1\n}",
            ":3:7: NetState has no field 'levl'; did you mean 'level'?",
        ),
        (
            "net_param {\n  layer {\n\n    nme: 'x' } }",
            ":4:8: LayerParameter has no field 'nme'; did you mean 'name'?",
        ),
        (
            "layer { name: 'x' }",
            ":1:7: 'layer' belongs into a net file; a solver file is wanted here",
        ),
        ("net: 'a'\nbase_lr: x", ":2:10: Expected double, got: x, in: base_lr: x"),
        ("net: 'a'\nmax_iter: 1.5", ":2:11: Expected integer, got: 1.5, in: max_iter: 1.5"),
        (
            "net: 'a'\nmax_iter: 99999999999",
            ":2:11: Integer out of range (99999999999), in: max_iter: 99999999999",
        ),
        (
            "net: 'a'\nsolver_mode: TPU",
            ":2:17: solver_mode: 'TPU' is not allowed here; expected one of CPU, GPU",
        ),
        ("net: 'a'\nbase_lr: 1\nbase_lr: 2", ":3:8: 'base_lr' is given twice"),
        ("net: a", ":1:6: Expected string, got: a, in: net: a"),
        ("net: 'a", ":1:8: Unexpected end of string, in: net: 'a"),
        ("net: 'a'\n}", ":2:1: Expected identifier, got: }, in: }"),
        ("net: 'a'\ntrain_state {\n", ":3:1: Expected identifier, got: the end of the file"),
        ("\x00\x01\x02", ": is not a text file; a .prototxt is wanted here"),
    ],
)
def test_a_solver_file_that_does_not_read_is_refused_naming_line_and_field(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    assert refusal_of_file(read_solver, path) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: 'n'\nlayer {\n  typ: 'Data'\n}",
            ":3:6: LayerParameter has no field 'typ'; did you mean 'type'?",
        ),
        (
            "layer {\n include { phase: TRIAN } }",
            ":2:25: phase: 'TRIAN' is not allowed here; expected one of TRAIN, TEST",
        ),
        (
            "layer {\n pooling_param {\n pool: MIN } }",
            ":3:12: pool: 'MIN' is not allowed here; expected one of MAX, AVE, STOCHASTIC",
        ),
        ("base_lr: 1", ":1:8: 'base_lr' belongs into a solver file; a net file is wanted here"),
    ],
)
def test_a_net_file_that_does_not_read_is_refused_naming_line_and_field(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert refusal_of_file(read_net, path) == said


def test_bytes_that_are_no_utf8_are_refused_where_they_mean_something(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    for string in (b"'caf\xe9'", b"'caf\\351'"):
        path.write_bytes(b"base_lr: 1\nnet: " + string)
        assert refusal_of_file(read_solver, path) == (
            ": a string in it is not UTF-8; save the file as UTF-8"
        )
    path.write_bytes(b"\xff\xfe\x80\x90")
    assert ":1:1: Interpreting non ascii codepoint 255" in refusal_of_file(read_solver, path)


def test_a_comment_may_be_in_any_encoding_as_with_caffe(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_bytes("net: 'a'  # 学习率\n".encode("gbk"))
    assert read_solver(path).net == "a"


def test_a_missing_file_and_a_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    assert refusal_of_file(read_solver, tmp_path / "no.prototxt") == (
        ": cannot be read: No such file or directory"
    )
    assert refusal_of_file(read_solver, tmp_path) == ": cannot be read: Is a directory"


@pytest.mark.parametrize("wrapping", ["layers {{ {} }}", "layers {{ layer {{ {} }} }}"])
def test_layers_of_before_caffe_1_are_refused_with_the_command_that_upgrades_them(
    tmp_path: Path, wrapping: str
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(wrapping.format("name: 'x'"))
    assert refusal_of_file(read_net, path) == (
        ": uses the old 'layers { }' format; upgrade it with "
        f"'upgrade_net_proto_text {path} NEW.prototxt' and give the new file"
    )


def test_floats_are_written_in_few_digits_that_read_back_to_the_same_bits() -> None:
    solver = pycaffe.messages().SolverParameter
    for value, text in ((0.01, "0.01"), (1 / 3, "0.33333334"), (1e-45, "1.4013e-45")):
        message = solver(base_lr=value)
        assert to_text(message) == f"base_lr: {text}\n"
        assert text_format.Parse(to_text(message), solver()) == message


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    for name, message in (
        ("lenet_train_test", "NetParameter"),
        ("lenet_solver", "SolverParameter"),
    ):
        empty = getattr(pycaffe.messages(), message)
        read = read_text(PROJECT / f"examples/mnist/{name}.prototxt", empty())
        path = tmp_path / name
        path.write_text(to_text(read))
        assert read_text(path, empty()) == read
