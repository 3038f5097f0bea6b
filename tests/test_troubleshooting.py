"""Every message that the troubleshooting page explains is made to occur."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from helpers.audits import write_audit
from helpers.nets import write_solver
from helpers.places import BIN, PROJECT

import caffe_pysgd
from caffe_pysgd.files import lock_folder
from caffe_pysgd.run.outputs import own_folder
from caffe_pysgd.run.resolve import resolve

PAGE = (PROJECT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


def said(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises((caffe_pysgd.UserError, AttributeError)) as caught:
        call(*arguments)
    return str(caught.value)


def of_command(*arguments: str, **environment: str) -> str:
    process = subprocess.run(
        [str(BIN / "caffe-pysgd"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    return process.stderr.strip()[len("caffe-pysgd: ") :]


def of_yaml(update: str) -> str:
    Path("run.yaml").write_text(f"solver: solver.prototxt\nrun_dir: d\nupdate: {update}\n")
    return said(resolve, Path("run.yaml"))


def of_net(text: str) -> str:
    Path("net.prototxt").write_text(text)
    return of_solver('net: "net.prototxt"')


def of_solver(text: str) -> str:
    Path("own.prototxt").write_text(f'{text}\nbase_lr: 0.1\nlr_policy: "fixed"\nmax_iter: 1\n')
    return said(resolve, Path("own.prototxt"))


def without_caffe() -> str:
    program = "import caffe_pysgd.stock.pycaffe as p; p.compiled()"
    process = subprocess.run(
        [sys.executable, "-S", "-c", program],  # -S: no site-packages
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    return process.stderr.splitlines()[-1].partition("UserError: ")[2]


def broken_numpy() -> str:
    Path("path").mkdir()
    Path("path/numpy.py").write_text("raise RuntimeError('compiled against another API')")
    return of_command("inject", "solver.prototxt", "--run-dir=d", PYTHONPATH="path")


def without_pandas() -> str:
    write_audit(Path("d/audit.sqlite"), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]
        return said(caffe_pysgd.open_run("d").to_pandas)


def on_a_gpu() -> str:
    import caffe

    if hasattr(caffe._caffe.Blob, "_gpu_data_ptr"):
        pytest.skip("this Caffe knows GPUs")
    return of_command("solve", "solver.prototxt", "--gpu=0")


def of_another_rule() -> str:
    caffe_pysgd.SGDSolver("solver.prototxt").snapshot()
    write_solver(Path(), name="adam", type="Adam", momentum2=0.999)
    return said(caffe_pysgd.AdamSolver("adam.prototxt").restore, "solver_iter_0.solverstate")


def a_model_for_a_state() -> str:
    solver = caffe_pysgd.SGDSolver("solver.prototxt")
    solver.snapshot()
    return said(solver.restore, "solver_iter_0.caffemodel")


def a_folder_in_use() -> str:
    Path("d").mkdir()
    lock = lock_folder(Path("d"))
    try:
        return of_command("solve", "solver.prototxt", "--run-dir=d")
    finally:
        os.close(lock)


def a_foreign_file() -> str:
    Path("d").mkdir()
    Path("d/solver.prototxt").write_text("mine")
    return said(own_folder, Path("d"))


def nothing_to_compare_with() -> str:
    Path("run.yaml").write_text("{solver: solver.prototxt, run_dir: d, update: {rule: adamw}}")
    return said(resolve(Path("run.yaml")).refuse_beyond_caffe)


def diverged() -> str:
    Path("run.yaml").write_text("{solver: solver.prototxt, update: {on_nonfinite: stop}}")
    solver = caffe_pysgd.get_solver("run.yaml")
    solver.net.params["conv"][0].data[...] = float("nan")
    return said(solver.step, 1)


def a_misspelling() -> str:
    solver = caffe_pysgd.SGDSolver("solver.prototxt")
    with pytest.warns(UserWarning) as warned:
        solver.momentm = 1
    return str(warned[0].message)


def no_audit() -> str:
    Path("d").mkdir()
    Path("d/audit.sqlite").write_text("no audit")
    return said(caffe_pysgd.open_run, "d")


LMDB = 'layer { name: "d" type: "Data" top: "d" data_param { source: "no" backend: LMDB } }'

# By the first words of the message.
CASES: Dict[str, Callable[[], str]] = {
    "Caffe is not importable": without_caffe,
    "… cannot be loaded": broken_numpy,
    "this Caffe was built without GPU": on_a_gpu,
    "this needs pandas": without_pandas,
    "…: there is no such file; give a solver": lambda: of_command("train", "no.prototxt"),
    "…: net: there is no file": lambda: of_solver('net: "no.prototxt"'),
    "…: Caffe cannot build its nets: Caffe says: Check failed": lambda: of_net(LMDB),
    "…: Caffe cannot build its nets: Caffe says: … Unknown": lambda: of_net(
        'layer { name: "c" type: "Convolutionn" }'
    ),
    "…: SolverParameter has no field": lambda: of_solver('net: "net.prototxt" momentm: 0.9'),
    "…: update.momentm": lambda: of_yaml("{momentm: 0.9}"),
    "…: update.rule": lambda: of_yaml("{rule: adm}"),
    "…: update.params[0].match": lambda: of_yaml("{params: [{match: 'fc*', lr_mult: 0}]}"),
    "…: type: got": lambda: said(caffe_pysgd.AdamSolver, "solver.prototxt"),
    "No such option: --gpu": lambda: of_command("train", "solver.prototxt", "--gpu=0"),
    "…: holds the state of rule": of_another_rule,
    "…: is not a complete Caffe solver state": a_model_for_a_state,
    "…: another run is writing into it": a_folder_in_use,
    "…: would be replaced": a_foreign_file,
    "…: Caffe has no rule": nothing_to_compare_with,
    "…: … of … values of the gradient": diverged,
    "… has no setting 'momentm'": a_misspelling,
    "…: there is no such file; give an audit": lambda: said(caffe_pysgd.open_run, "no"),
    "…: cannot be read as an audit": no_audit,
}


def test_every_message_of_the_page_has_a_case() -> None:
    found = {message: [words for words in CASES if message.startswith(words)]
             for message in MESSAGES}  # fmt: skip
    assert {message: words for message, words in found.items() if len(words) != 1} == {}
    assert len(MESSAGES) == len(CASES) >= 20


@pytest.mark.parametrize("words", CASES, ids=lambda words: words[:40])
def test_a_message_occurs_as_the_page_has_it(words: str, workdir: Path) -> None:
    (message,) = (one for one in MESSAGES if one.startswith(words))
    write_solver(workdir, max_iter=2)
    pattern = re.escape(message).replace("…", ".+")
    found = CASES[words]()
    assert re.match(pattern, found), found
