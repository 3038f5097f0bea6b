"""What ``doctor`` finds out: whether training can run here, in which hosts and with which bits."""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.blas import blas_of_caffe
from caffe_pysgd.stock.reader import NoReader, read_as_caffe

_VERSIONS = "take the version that goes with this Caffe (docs/install.md)"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is.
        found: what was found.
        fix: what to do if training cannot run because of it; empty if it can.
        lacking: whether it is not here, and something else runs without it.
    """

    subject: str
    found: str
    fix: str = ""
    lacking: bool = False


def diagnose_installation() -> Iterator[Finding]:
    """Look at everything that training needs, one thing after the other."""
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    usable = True
    for package, module in (("numpy", "numpy"), ("protobuf", "google.protobuf.message")):
        finding = _package(package, module)
        usable = usable and not finding.fix
        yield finding
    if not usable:
        return
    steps: List[Callable[[], Iterator[Finding]]] = [_module, _kernels, _hosts]
    for step in steps:
        try:
            yield from step()
        except UserError as error:
            yield Finding("caffe", "not usable", str(error))
            return


def _package(package: str, module: str) -> Finding:
    spec = None
    try:
        spec = importlib.util.find_spec(module.split(".")[0])
        importlib.import_module(module)
        return Finding(package, metadata.version(package))
    except Exception as error:  # a mix of versions can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".splitlines())
        origin = f" ({spec.origin})" if spec and spec.origin else ""
        return Finding(package, f"cannot be imported{origin}: {reason}", f"broken: {_VERSIONS}")


def _module() -> Iterator[Finding]:
    caffe = pycaffe.compiled()
    pycaffe.messages()
    yield Finding("pycaffe", f"{caffe.__version__}, {caffe.__file__}")
    yield _reader()


def _reader() -> Finding:
    """Read a file with Caffe's own reader."""
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        path = Path(directory, "solver.prototxt")
        path.write_text("base_lr: - 1")  # Python's reader refuses a sign that stands apart
        try:
            read_as_caffe(path, "SolverParameter")
            return Finding("prototxt reader", "Caffe's own")
        except NoReader as error:
            return Finding("prototxt reader", f"Python's; Caffe's cannot be reached: {error}")


def _kernels() -> Iterator[Finding]:
    # Not at the top: what it imports may be what is broken.
    from caffe_pysgd.update import RULES
    from caffe_pysgd.update.fused import FusedKernels
    from caffe_pysgd.update.kernels import CaffeKernels, MissingSymbols

    native = "native (the native solver's bits), numpy"
    try:
        CaffeKernels(pycaffe.library_path())
        try:
            fused = FusedKernels(pycaffe.library_path())
            unfused = refused_passes(fused, RULES.values())
            same = [name for name in RULES if name not in unfused]
            yield Finding("kernels", f"fused and {native}" if same else native)
            yield Finding(
                "axpy rounds", "once (fused multiply-add)" if fused.rounds_once else "twice"
            )
            yield Finding("fused passes", f"same bits as native: {', '.join(same) or 'none'}")
            for name, reason in unfused.items():
                yield Finding(f"{name} not fused", f"native instead: {reason}")
        except UserError as error:
            yield Finding("kernels", native)
            yield Finding("no fused kernels", str(error))
    except MissingSymbols as missing:
        yield Finding("kernels", f"numpy only, not exact: Caffe's are not exported ({missing})")
    blas = [text.rsplit("/", 1)[-1] for text in blas_of_caffe()]
    yield Finding("BLAS", ", ".join(blas) or "linked into Caffe; it does not show which")


def refused_passes(kernels: Any, rules: Iterable[Any]) -> Dict[str, str]:
    """Compile rules' passes, run them, and compare them with Caffe's operations.

    Return the rules whose passes cannot be used, and why.
    """
    import numpy as np

    from caffe_pysgd.update import HyperParameters, Parameter, Updater

    h = HyperParameters(base_lr=np.float32(0.01))
    for rule in rules:
        parameter = Parameter("doctor", np.zeros(1, np.float32), np.zeros(1, np.float32))
        Updater([parameter], h, rule(), kernels).prepare()
    return dict(kernels.unfused)


def _hosts() -> Iterator[Finding]:
    """Say in which hosts the update can run; only the one in ``caffe train`` asks for much."""
    yield from _in_net()
    yield Finding("host hook", "take_over(SOLVER)")
    yield Finding("host solver", "caffe-pysgd solve, get_solver(SOLVER)")


def _in_net() -> Iterator[Finding]:
    try:
        pycaffe.require_python_layer(pycaffe.compiled().layer_type_list())
        program = pycaffe.binary()
    except UserError as error:
        yield Finding("host in-net", str(error), lacking=True)
        return
    yield Finding("Python layer", "yes")
    yield Finding("caffe binary", str(program))
    works = True
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        for finding in _probe(program, Path(directory)):
            works = works and not finding.fix
            yield finding
    if works:
        yield Finding("host in-net", "caffe-pysgd train")


def _probe(program: Path, directory: Path) -> Iterator[Finding]:
    """Run the probe layer inside the ``caffe`` binary, and tell how far it came."""
    report = directory / "report"
    net, solver = directory / "net.prototxt", directory / "solver.prototxt"
    net.write_text(
        'layer { name: "probe" type: "Python" top: "probe" python_param { layer: "Probe" '
        f'module: "caffe_pysgd.doctor.layer" param_str: {json.dumps(str(report))} }} }}'
    )
    solver.write_text(
        f"net: {json.dumps(str(net))} base_lr: 0 lr_policy: 'fixed' max_iter: 0 "
        f"snapshot_after_train: false snapshot_prefix: {json.dumps(str(directory / 'x'))}"
    )
    try:
        process = subprocess.run(
            [str(program), "train", f"--solver={solver}"],
            env={**pycaffe.binary_environment(), "GLOG_logtostderr": "1"},
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise UserError(f"{program} cannot be started: {error.strerror}") from error
    log = process.stderr.decode(errors="replace")
    if not report.exists():
        yield Finding("inside caffe", "no Python layer runs", pycaffe.failure_reason(log))
        return
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    outcomes: Dict[str, Dict[str, str]] = {}
    for trying, outcome in zip(lines[::2], [*lines[1::2], _death(process.returncode)]):
        outcomes[trying["trying"]] = outcome
    for name, outcome in outcomes.items():
        subject = f"{name} inside caffe"
        if "found" in outcome:
            yield Finding(subject, outcome["found"])
        elif name == "h5py":
            found = f"{outcome['failed']}; snapshots in HDF5 need it"
            yield Finding(subject, found, lacking=True)
        else:
            fix = f"{name} does not work inside caffe: {_VERSIONS}"
            yield Finding(subject, outcome["failed"], fix)


def _death(returncode: int) -> Dict[str, str]:
    name = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
    return {"failed": f"crashes ({name})"}
