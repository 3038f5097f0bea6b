"""A layer that tries, inside the ``caffe`` binary, what the in-net host needs there.

There the program's own OpenBLAS, protobuf and HDF5 come before those that a PyPI wheel brings,
and a wheel that binds to the wrong one crashes. ``doctor`` runs this layer and reads how far it
came.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Callable, Dict

from caffe_pysgd.doctor.checks import refused_passes
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe

_caffe: Any = pycaffe.compiled()


def _numpy() -> str:
    import numpy as np

    square = np.ones((256, 256), np.float32)
    if not (square @ square == 256).all():
        raise ArithmeticError("a matrix product is wrong")
    return str(np.__version__)


def _protobuf() -> str:
    import google.protobuf

    pycaffe.messages().NetParameter(name="probe").SerializeToString()
    version: str = google.protobuf.__version__
    return version


def _optional(name: str) -> Callable[[], str]:
    def version() -> str:
        try:
            found = importlib.import_module(name).__version__
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            found = "not installed"
        return str(found)

    return version


def _llvmlite() -> str:
    """Try the simplest pass; where it cannot be used, training goes on without."""
    from caffe_pysgd.update import NATIVE_RULES
    from caffe_pysgd.update.fused import FusedKernels
    from caffe_pysgd.update.kernels import MissingSymbols

    try:
        kernels = FusedKernels(pycaffe.library_path())
    except MissingSymbols:
        return "not tried: no Caffe's bits to compare with"
    except UserError as error:
        return f"native instead: {error}"
    for reason in refused_passes(kernels, [NATIVE_RULES["SGD"]]).values():
        return f"native instead: {reason}"
    return _optional("llvmlite")()


ATTEMPTS: Dict[str, Callable[[], str]] = {
    "numpy": _numpy,
    "protobuf": _protobuf,
    "h5py": _optional("h5py"),
    "llvmlite": _llvmlite,
}


class Probe(_caffe.Layer):  # type: ignore[name-defined]
    """Writes one JSON line before and one after each attempt to the file in ``param_str``."""

    def setup(self, bottom: Any, top: Any) -> None:
        with open(self.param_str, "w", buffering=1) as report:
            for name, attempt in ATTEMPTS.items():
                report.write(json.dumps({"trying": name}) + "\n")
                try:
                    outcome = {"found": attempt()}
                except Exception as error:
                    outcome = {"failed": f"{type(error).__name__}: {error}"}
                report.write(json.dumps(outcome) + "\n")

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1)

    def forward(self, bottom: Any, top: Any) -> None:
        pass

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass
