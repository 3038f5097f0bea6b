"""A relay of hosts: each resumes from another's snapshot, and the bits are those of one runner."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from helpers.nets import RULES_OF_CAFFE, SMALL, write_solver
from helpers.programs import run_python
from helpers.runs import caffe_train
from helpers.solvers import SUFFIX, same_snapshots

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.snapshots import read_solver_state


def well(process: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert process.returncode == 0, process.stderr[-2000:]
    return process


class Relay:
    """One run in legs; each leg ends in a snapshot, from which the next one starts."""

    def __init__(self, cli: Callable, folder: Path, suffix: str, solver: Path, leg: int) -> None:
        self.cli, self.folder, self.suffix, self.solver, self.leg = cli, folder, suffix, solver, leg
        self.done = 0
        self.snapshot = ""

    def _from(self, flag: str) -> list[str]:
        return [f"{flag}{self.snapshot}"] if self.snapshot else []

    def _arrive(self, prefix: str) -> None:
        self.done += self.leg
        self.snapshot = f"{self.folder}/{prefix}_iter_{self.done}.solverstate{self.suffix}"
        assert Path(self.snapshot).exists()

    def stock(self) -> None:
        limit = f"max_iter: {self.done + self.leg}"
        text = re.sub(r"max_iter: \d+", limit, self.solver.read_text())
        path = self.folder / "leg.prototxt"
        path.write_text(text)
        if pycaffe.find_binary():
            well(caffe_train(path, *self._from("--snapshot=")))
        else:
            program = "import caffe, sys; s = caffe.get_solver(sys.argv[1]); s.solve(*sys.argv[2:])"
            well(run_python(program, path, *self._from("")))
        self._arrive("run")

    def solve(self) -> None:
        iterations = f"--iterations={self.done + self.leg}"
        well(self.cli("solve", self.solver, iterations, *self._from("--snapshot=")))
        self._arrive("run")

    def hook(self) -> None:
        program = (
            "import caffe_pysgd, sys; s = caffe_pysgd.take_over(sys.argv[1]);"
            "s.restore(sys.argv[2]); s.step(int(sys.argv[3])); s.snapshot()"
        )
        well(run_python(program, self.solver, self.snapshot, self.leg))
        self._arrive("run")

    def in_net(self) -> None:
        """In-net snapshots are of another kind: convert on the way in and on the way out."""
        into = self.folder / "into"
        well(self.cli("convert", self.solver, into, "--snapshot", self.snapshot))
        into_state = f"{into}_iter_{self.done}.solverstate{self.suffix}"
        iterations = f"--iterations={self.done + self.leg}"
        arguments = ["train", self.solver, iterations, f"--snapshot={into_state}"]
        well(self.cli(*arguments, "--run-dir", self.folder / "injected"))
        self._arrive("run")
        out = self.folder / "out"
        well(self.cli("convert", self.solver, out, "--snapshot", self.snapshot))
        self.snapshot = f"{out}_iter_{self.done}.solverstate{self.suffix}"


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_a_relay_of_hosts_has_the_bits_of_the_native_solver(
    workdir: Path, cli: Callable, rule: str, format: str
) -> None:
    run_relay(workdir, cli, rule, format, leg=5)


@pytest.mark.slow
@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
def test_a_long_relay_has_the_bits_of_the_native_solver(
    workdir: Path, cli: Callable, rule: str, format: str
) -> None:
    run_relay(workdir, cli, rule, format, leg=50)


def run_relay(workdir: Path, cli: Callable, rule: str, format: str, leg: int) -> None:
    relays = {}
    for name in ("one", "many"):
        folder = workdir / name
        folder.mkdir()
        fields = {"snapshot_format": format, "type": rule, **RULES_OF_CAFFE[rule]}
        fields.update(lr_policy="multistep", gamma=0.5, stepvalue=[leg - 2, 2 * leg + 1])
        solver = write_solver(folder, SMALL, snapshot_prefix=folder / "run", **fields)
        relays[name] = Relay(cli, folder, SUFFIX[format], solver, leg)
    one, many = relays["one"], relays["many"]
    for _ in range(5):
        one.stock()
    many.stock()
    many.solve()
    if pycaffe.find_binary() and "Python" in pycaffe.compiled().layer_type_list():
        many.in_net()
    else:
        many.solve()
    many.hook()
    many.stock()
    found = read_solver_state(Path(many.snapshot))
    assert (found.iteration, found.current_step) == (5 * leg, 2)
    same_snapshots(Path(one.snapshot), Path(many.snapshot))
