"""``verify``: what it says, writes and leaves behind, and when it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict

import pytest
from helpers.failures import failure
from helpers.nets import NETS, SMALL, STAGED, write_solver
from helpers.programs import in_venv

LAST_LINE = re.compile(
    r"verify: (\d+) of (\d+) values differ, max (\d+) ulp, after (\d+) iterations"
)


def verdict(process: Any) -> Dict[str, int]:
    match = LAST_LINE.fullmatch(process.stdout.splitlines()[-1])
    assert match, process.stdout
    return dict(zip(("differ", "values", "max_ulp", "iterations"), map(int, match.groups())))


@pytest.mark.parametrize("net", NETS)
def test_nothing_differs_with_the_native_kernels(cli: Any, workdir: Path, net: str) -> None:
    write_solver(workdir, NETS[net])
    process = cli("verify", "solver.prototxt", "--iterations=5")
    found = verdict(process)
    assert (process.returncode, found["differ"], found["max_ulp"]) == (0, 0, 0)
    assert found["iterations"] == 5
    assert found["values"] > 100


def test_it_leaves_nothing_behind(cli: Any, workdir: Path) -> None:
    write_solver(workdir, snapshot=2)
    temporary = workdir / "temporary"
    temporary.mkdir()
    before = sorted(workdir.rglob("*"))
    assert cli("verify", "solver.prototxt", "--iterations=4", TMPDIR=str(temporary)).returncode == 0
    write_solver(workdir, SMALL + "layer { name: 'x' type: 'No' include { stage: 's' } }")
    assert cli("verify", "solver.prototxt", "--stage=s", TMPDIR=str(temporary)).returncode == 2
    assert sorted(workdir.rglob("*")) == before


def test_real_differences_are_counted_reported_and_exit_with_1(cli: Any, workdir: Path) -> None:
    """The NumPy kernels round twice where Caffe's BLAS rounds once: they do differ."""
    write_solver(workdir)
    Path("run.yaml").write_text("solver: solver.prototxt\nupdate: {kernels: numpy}\n")
    process = cli("verify", "run.yaml", "--iterations=20", "--json=out/verdict.json")
    found = verdict(process)
    assert process.returncode == 1
    assert 0 < found["differ"] <= found["values"]
    assert found["max_ulp"] > 0
    assert "values differ, max" in process.stdout.splitlines()[0]
    written = json.loads(Path("out/verdict.json").read_text())
    assert {name: written[name] for name in found} == found
    parts = written["weights"] + written["history"]
    assert sum(part["differ"] for part in parts) == found["differ"]
    assert max(part["max_ulp"] for part in parts) == found["max_ulp"]
    assert [part["name"] for part in written["weights"]] == [
        "conv/0", "conv/1", "hidden/0", "hidden/1", "out/0",
    ]  # fmt: skip
    first = next(part for part in parts if part["differ"])
    assert float.fromhex(first["expected"]) != float.fromhex(first["found"])


def test_json_is_written_where_nothing_differs_too(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    assert cli("verify", "solver.prototxt", "--iterations=2", "--json=v.json").returncode == 0
    written = json.loads(Path("v.json").read_text())
    assert (written["differ"], written["max_ulp"], written["iterations"]) == (0, 0, 2)
    assert all(part["differ"] == 0 for part in written["weights"] + written["history"])


def test_hdf5_snapshots_and_a_shared_weight_can_be_verified(cli: Any, workdir: Path) -> None:
    layers = SMALL.replace(
        '\nlayer {\n  name: "out"',
        """
layer {
  name: "again" type: "InnerProduct" bottom: "hidden" top: "again" param { name: "square" }
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } }
}
layer {
  name: "twice" type: "InnerProduct" bottom: "again" top: "hidden2" param { name: "square" }
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } }
}
layer {\n  name: \"out\"""",
    ).replace('bottom: "hidden" top: "out"', 'bottom: "hidden2" top: "out"')
    write_solver(workdir, layers, snapshot_format="HDF5")
    process = cli("verify", "solver.prototxt", "--iterations=3")
    assert process.returncode == 0, process.stderr
    assert verdict(process)["differ"] == 0


def test_without_iterations_there_is_nothing_to_verify(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=None)
    assert failure(cli("verify", "solver.prototxt")) == (
        "solver.prototxt: max_iter is 0: nothing would be compared; give --iterations N"
    )


def test_when_caffe_fails_its_reason_is_given(cli: Any, workdir: Path) -> None:
    """A net that can be built but whose test net cannot."""
    broken = SMALL + 'layer { name: "x" type: "No" include { phase: TEST } }'
    write_solver(workdir, broken, test_iter=1, test_interval=1)
    process = cli("verify", "solver.prototxt", "--iterations=2")
    assert process.returncode == 2
    said = process.stderr.splitlines()[-1]
    assert said.startswith(
        "caffe-pysgd: solver.prototxt: Caffe cannot build its nets: Caffe says: "
    )
    assert "Unknown layer type: No" in said
    assert "Traceback" not in process.stderr


def test_a_failing_python_layer_is_told_as_far_as_caffe_tells(cli: Any, workdir: Path) -> None:
    Path("m").mkdir()
    Path("m/broken.py").write_text(
        "import caffe\nclass Broken(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(1)\n"
        "    def forward(self, bottom, top): raise ValueError('no')\n"
    )
    layer = (
        'layer { name: "x" type: "Python" top: "x" '
        'python_param { module: "broken" layer: "Broken" } }'
    )
    write_solver(workdir, SMALL + layer)
    process = cli("verify", "solver.prototxt", "--iterations=2", PYTHONPATH=str(workdir / "m"))
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == (
        "caffe-pysgd: training failed: Caffe says no more than: a Python layer raised an "
        "exception, SIGABRT in caffe::PythonLayer<>::Forward_cpu()"
    )


@pytest.mark.parametrize("host", ["hook", "solver"])
def test_without_the_caffe_program_the_native_run_is_pycaffes(
    workdir: Path, other_venv: Path, host: str
) -> None:
    write_solver(workdir, STAGED)
    arguments = ["verify", "solver.prototxt", "--iterations=4", f"--host={host}"]
    sizes = []
    for flags in ([], ["--stage=wide"]):
        process = in_venv(other_venv, *arguments, *flags)
        found = verdict(process)
        assert (process.returncode, found["differ"], found["iterations"]) == (0, 0, 4)
        sizes.append(found["values"])
    assert sizes[1] > sizes[0]  # the stages reach the native solver


def test_in_the_program_that_is_not_there_nothing_can_be_verified(
    workdir: Path, other_venv: Path
) -> None:
    write_solver(workdir)
    process = in_venv(other_venv, "verify", "solver.prototxt")
    assert "no 'caffe' program" in failure(process)
    assert "training" not in process.stderr


def test_a_gpu_that_this_caffe_has_not_is_one_line(cli: Any, workdir: Path) -> None:
    write_solver(workdir, solver_mode="GPU")
    for host in ("in-net", "hook", "solver"):
        said = failure(cli("verify", "solver.prototxt", f"--host={host}"))
        assert said.startswith("this Caffe was built without GPU support")


TELLING = """
import pathlib
import caffe_pysgd

class Telling(caffe_pysgd.Logger):
    def begin_run(self, iteration):
        pathlib.Path("told").touch()
"""


def test_no_logger_is_told(cli: Any, workdir: Path) -> None:
    write_solver(workdir)
    Path("telling.py").write_text(TELLING)
    Path("run.yaml").write_text("solver: solver.prototxt\nloggers: ['telling:Telling']\n")
    for command in ("verify", "train"):
        assert not Path("told").exists()
        assert cli(command, "run.yaml", "--iterations=1").returncode == 0
    assert Path("told").exists()
