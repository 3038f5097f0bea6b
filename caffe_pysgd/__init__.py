"""Python owns the parameter update of Caffe: see it, prove it, change it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

from caffe_pysgd.stock import pycaffe
from caffe_pysgd.version import __version__ as __version__

if TYPE_CHECKING:
    from caffe_pysgd.errors import SettingError as SettingError
    from caffe_pysgd.errors import UserError as UserError
    from caffe_pysgd.hosts.hook import take_over as take_over
    from caffe_pysgd.hosts.loggers.logger import Logger as Logger
    from caffe_pysgd.hosts.solver import Action as Action
    from caffe_pysgd.hosts.solver import AdaDeltaSolver as AdaDeltaSolver
    from caffe_pysgd.hosts.solver import AdaGradSolver as AdaGradSolver
    from caffe_pysgd.hosts.solver import AdamSolver as AdamSolver
    from caffe_pysgd.hosts.solver import NesterovSolver as NesterovSolver
    from caffe_pysgd.hosts.solver import RMSPropSolver as RMSPropSolver
    from caffe_pysgd.hosts.solver import SGDSolver as SGDSolver
    from caffe_pysgd.hosts.solver import get_solver as get_solver
    from caffe_pysgd.proof.diagnose.diagnose import diagnose as diagnose
    from caffe_pysgd.proof.shadow import shadow as shadow
    from caffe_pysgd.update import ParameterStep as ParameterStep
    from caffe_pysgd.update import UpdateRule as UpdateRule
    from caffe_pysgd.views.recorded_run import open_run as open_run

# Imported when first asked for: the command line must start where NumPy or Caffe is broken, to say
# so, and a rule needs no Caffe.
_MODULES = {
    "ParameterStep": "caffe_pysgd.update",
    "UpdateRule": "caffe_pysgd.update",
    "SettingError": "caffe_pysgd.errors",
    "UserError": "caffe_pysgd.errors",
    "Logger": "caffe_pysgd.hosts.loggers.logger",
    "diagnose": "caffe_pysgd.proof.diagnose.diagnose",
    "open_run": "caffe_pysgd.views.recorded_run",
    "shadow": "caffe_pysgd.proof.shadow",
    "take_over": "caffe_pysgd.hosts.hook",
    "Action": "caffe_pysgd.hosts.solver",
    "AdaDeltaSolver": "caffe_pysgd.hosts.solver",
    "AdaGradSolver": "caffe_pysgd.hosts.solver",
    "AdamSolver": "caffe_pysgd.hosts.solver",
    "NesterovSolver": "caffe_pysgd.hosts.solver",
    "RMSPropSolver": "caffe_pysgd.hosts.solver",
    "SGDSolver": "caffe_pysgd.hosts.solver",
    "get_solver": "caffe_pysgd.hosts.solver",
}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # what `from caffe_pysgd import *` gives: pycaffe's names, and ours
        return sorted({*_MODULES, *(n for n in vars(pycaffe.package()) if not n.startswith("_"))})
    if name.startswith("_") and name != "_caffe":
        raise AttributeError(f"module 'caffe_pysgd' has no attribute '{name}'")
    module = _MODULES.get(name)
    if module is None:  # so that a program changes over with `import caffe_pysgd as caffe`
        return getattr(pycaffe.package(), name)
    if module.startswith("caffe_pysgd.hosts"):
        pycaffe.package()  # whoever drives Caffe from Python wants net.params, net.blobs, ...
    return getattr(importlib.import_module(module), name)


def __dir__() -> List[str]:
    return sorted({*_MODULES, "__version__"})
