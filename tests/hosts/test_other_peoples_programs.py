"""Programs that were written for pycaffe elsewhere: scripts, with layers and settings of their own.

Each runs as a script of its own, with stock pycaffe and with ours; the bits must be the same.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.nets import DATA, SMALL, write_solver
from helpers.solvers import native, trail

LAYER = """
class Widen(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1, cfg["width"])
        self.blobs[0].data[...] = range(1, cfg["width"] + 1)
    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].shape[0], cfg["width"])
    def forward(self, bottom, top):
        first = bottom[0].data.reshape(bottom[0].shape[0], -1)[:, :1]
        top[0].data[...] = first * self.blobs[0].data
    def backward(self, top, propagate_down, bottom):
        first = bottom[0].data.reshape(bottom[0].shape[0], -1)[:, :1]
        self.blobs[0].diff[...] += (top[0].diff * first).sum(0)
"""

MODULE = "import caffe\nfrom settings import cfg\n" + LAYER
SETTINGS = "cfg = {'width': 2}\n"


def net_with_layer(module: str) -> str:
    return (
        DATA
        + f"""
layer {{ name: "widen" type: "Python" bottom: "data" top: "wide"
  python_param {{ module: "{module}" layer: "Widen" }} }}
layer {{ name: "out" type: "InnerProduct" bottom: "wide" top: "out"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }}
"""
    )


# How programs find their layers, and let them know what they are to do.
WAYS = {
    "beside the script": "from settings import cfg",
    "in a folder added at run time": "sys.path.insert(0, 'lib')\nfrom settings import cfg",
    "in the script": "cfg = {'width': 2}\nimport caffe\n" + LAYER,
}

# Trains the solver in a folder; each constructor seeds the process's random numbers anew.
TRAIN = """
def train(make, folder, state=""):
    solver = make(folder + "/solver.prototxt")
    if state:
        solver.restore(state)
    solver.step(3)
    solver.snapshot()
    for name, blobs in solver.net.params.items():
        for blob in blobs:
            yield name, blob.data.shape, blob.data.tobytes().hex()
"""


def run_script(folder: Path, text: str, **environment: str) -> str:
    """Run a script that lies in a folder, from there; return what it printed."""
    (folder / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def write_modules(folder: Path, way: str) -> None:
    """Write what a program imports to where it looks for it."""
    modules = folder / "lib" if "folder" in way else folder
    modules.mkdir(exist_ok=True)
    if way != "in the script":
        (modules / "layer.py").write_text(MODULE)
        (modules / "settings.py").write_text(SETTINGS)


HOSTS = ("stock", "drop-in", "hook")

COMPARE = """
import caffe, caffe_pysgd
makes = {
    "stock": caffe.get_solver, "drop-in": caffe_pysgd.get_solver, "hook": caffe_pysgd.take_over
}
stock, *ours = [list(train(makes[host], host)) for host in makes]
assert ("widen", (1, 4)) in [one[:2] for one in stock]
assert ("out", (3, 4)) in [one[:2] for one in stock]
assert ours == [stock, stock]
resumed = [list(train(caffe.get_solver, "stock", f"{h}/solver_iter_3.solverstate")) for h in makes]
assert resumed[0] != stock and resumed[1:] == [resumed[0], resumed[0]]
print("the same")
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_programs_own_layers_and_what_it_sets_are_those_of_the_net(
    workdir: Path, way: str
) -> None:
    """And what a program snapshots, stock Caffe goes on from, to the bit."""
    write_modules(workdir, way)
    module = "__main__" if way == "in the script" else "layer"
    for host in HOSTS:
        (workdir / host).mkdir()
        write_solver(workdir / host, net_with_layer(module), weight_decay=0.1)
    program = f"import sys\n{WAYS[way]}\ncfg['width'] = 4\n{TRAIN}{COMPARE}"
    assert run_script(workdir, program) == "the same\n"


ALIASES = {
    "named caffe": "import caffe_pysgd, sys\nsys.modules['caffe'] = caffe_pysgd\nimport caffe",
    "named caffe after the import of pycaffe": (
        "import caffe, caffe_pysgd, sys\nsys.modules['caffe'] = caffe_pysgd\nimport caffe"
    ),
    "its names put into pycaffe": (
        "import sys, caffe, caffe_pysgd\n"
        "for name in ('SGDSolver', 'AdamSolver', 'get_solver'):\n"
        "    setattr(caffe, name, getattr(caffe_pysgd, name))"
    ),
}

USES = """
import caffe.io, caffe.draw
from caffe.proto import caffe_pb2
from caffe import layers, params
assert caffe.io is sys.modules["caffe.io"] and caffe_pb2.SolverParameter
assert caffe.TRAIN == 0 and caffe.Layer and caffe.Net and layers.ReLU
"""


MAKES = """
assert caffe.SGDSolver is caffe_pysgd.SGDSolver
for make in (caffe.SGDSolver, caffe_pysgd.take_over):
    print(list(train(make, ".")))
"""


@pytest.mark.parametrize("alias", ALIASES)
def test_a_program_in_which_ours_is_put_in_the_place_of_pycaffe_runs(
    workdir: Path, alias: str
) -> None:
    (workdir / "pydot.py").touch()  # which caffe.draw imports
    solver = native(write_solver(workdir, SMALL))
    expected = [weights.tobytes().hex() for weights in trail(solver, 3)[-1].values()]
    said = run_script(workdir, ALIASES[alias] + USES + TRAIN + MAKES)
    for line in said.splitlines():
        assert [values for _, _, values in ast.literal_eval(line)] == expected
    assert said.count("conv") == 4


def test_what_would_abort_is_told_before_it_can(workdir: Path) -> None:
    """In the program's own image, where its layers are; and the program lives on."""
    write_solver(workdir, net_with_layer("__main__"))
    broken = LAYER.replace("top[0].reshape(", "raise ValueError('no such table')\n        top[0](")
    told = (
        "for make in (caffe_pysgd.get_solver, caffe_pysgd.take_over):\n"
        "    try:\n        make('solver.prototxt')\n"
        "    except caffe_pysgd.UserError as error:\n        print(error)\n"
    )
    program = f"import caffe, caffe_pysgd\ncfg = {{'width': 2}}\n{broken}\n{told}"
    said = run_script(workdir, program, GLOG_minloglevel="2")
    assert said == 2 * (
        "solver.prototxt: Caffe cannot build its nets: Caffe ended with: "
        "ValueError: no such table\n"
    )
    write_solver(workdir, SMALL.replace('"InnerProduct"', '"InerProduct"'))
    said = run_script(workdir, f"import caffe_pysgd\n{told}", GLOG_minloglevel="2")
    assert said.count("Unknown layer type: InerProduct") == 2


def test_what_a_layer_starts_in_the_copy_ends_with_it(workdir: Path) -> None:
    write_solver(workdir, net_with_layer("__main__"))
    starts = "bottom, top):\n        started.append(subprocess.Popen(SLEEP))\n"
    program = f"""
import os, subprocess, sys
import caffe, caffe_pysgd
cfg, started = {{"width": 2}}, []
SLEEP = [sys.executable, "-c", f"import time; time.sleep(60) # {{os.getpid()}}"]
{LAYER.replace("bottom, top):", starts, 1)}
solver = caffe_pysgd.get_solver("solver.prototxt")
for pid in filter(str.isdigit, os.listdir("/proc")):
    command = open(f"/proc/{{pid}}/cmdline").read().split(chr(0))
    if SLEEP[-1] in command:
        print(int(pid) == started[0].pid)
started[0].kill()
"""
    assert run_script(workdir, program) == "True\n"


# What another thread holds when the copy is made is held in it for ever.
WAITING = (
    """
import os, threading
import caffe, caffe_pysgd
from caffe_pysgd.stock import helper
cfg, lock = {"width": 4}, threading.Lock()
os.register_at_fork(after_in_child=lock.acquire)
helper._STUCK_SECONDS = 0.3
"""
    + LAYER.replace("bottom, top):\n", "bottom, top):\n        with lock: pass\n", 1)
    + """
for make in (caffe_pysgd.get_solver, caffe_pysgd.take_over):
"""
)


def test_where_no_copy_can_build_the_net_the_program_builds_it(workdir: Path) -> None:
    write_solver(workdir, net_with_layer("__main__"))
    look = "    print(make('solver.prototxt').net.params['out'][0].data.shape)\n"
    assert run_script(workdir, WAITING + look) == "(3, 4)\n" * 2


def test_multipliers_that_come_too_late_are_refused(workdir: Path) -> None:
    write_solver(workdir, net_with_layer("__main__"))
    (workdir / "run.yaml").write_text(
        "solver: solver.prototxt\nupdate: {params: [{match: out/0, lr_mult: 0}]}\n"
    )
    told = (
        "    try:\n        make('run.yaml')\n"
        "    except caffe_pysgd.UserError as error:\n        print(error)\n"
    )
    assert run_script(workdir, WAITING + told) == 2 * (
        "run.yaml: the multipliers of out/0 came too late: only this program can build its net; "
        f"write them into {workdir}/solver_net.prototxt\n"
    )


def test_the_modules_of_pycaffe_are_modules_of_ours_and_the_same(workdir: Path) -> None:
    (workdir / "pydot.py").touch()
    assert (
        run_script(
            workdir,
            """
import caffe_pysgd.io, caffe_pysgd.draw, caffe_pysgd.net_spec
from caffe_pysgd.proto import caffe_pb2
import caffe, caffe.draw, caffe.proto.caffe_pb2
assert caffe_pysgd.io is caffe.io and caffe_pysgd.draw is caffe.draw
assert caffe_pb2 is caffe.proto.caffe_pb2 and caffe.io.__spec__.name == "caffe.io"
stock, ours = {}, {}
exec("from caffe import *", stock)
exec("from caffe_pysgd import *", ours)
assert not set(stock) - set(ours) and ours["Net"] is caffe.Net
assert ours["SGDSolver"] is caffe_pysgd.SGDSolver and "take_over" in ours
try:
    import caffe_pysgd.nothing
except ModuleNotFoundError as error:
    print(error)
""",
        )
        == "No module named 'caffe_pysgd.nothing'\n"
    )
