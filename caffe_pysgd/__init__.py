"""Python owns the parameter update of Caffe: see it, prove it, change it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.version import __version__

if TYPE_CHECKING:
    from caffe_pysgd.errors import SettingError, UserError
    from caffe_pysgd.hosts.hook import take_over
    from caffe_pysgd.hosts.solver import (
        Action,
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        get_solver,
    )
    from caffe_pysgd.proof.diagnose.diagnose import diagnose
    from caffe_pysgd.proof.shadow import shadow
    from caffe_pysgd.update import ParameterStep, UpdateRule

__all__ = [
    "Action",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "ParameterStep",
    "RMSPropSolver",
    "SGDSolver",
    "SettingError",
    "UpdateRule",
    "UserError",
    "__version__",
    "diagnose",
    "get_solver",
    "shadow",
    "take_over",
]

# Imported when first asked for: the command line must start where NumPy or Caffe is broken, to say
# so, and a rule needs no Caffe.
_MODULES = {
    "ParameterStep": "caffe_pysgd.update",
    "UpdateRule": "caffe_pysgd.update",
    "SettingError": "caffe_pysgd.errors",
    "UserError": "caffe_pysgd.errors",
    "diagnose": "caffe_pysgd.proof.diagnose.diagnose",
    "shadow": "caffe_pysgd.proof.shadow",
    "take_over": "caffe_pysgd.hosts.hook",
}
_SOLVERS = "caffe_pysgd.hosts.solver"


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'caffe_pysgd' has no attribute '{name}'")
    if name not in __all__:  # so that a program changes over with `import caffe_pysgd as caffe`
        return getattr(pycaffe.package(), name)
    module = _MODULES.get(name, _SOLVERS)
    if module.startswith("caffe_pysgd.hosts"):
        pycaffe.package()  # whoever drives Caffe from Python wants net.params, net.blobs, ...
    return getattr(importlib.import_module(module), name)
