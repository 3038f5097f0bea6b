"""Caffe's update in Python: the arithmetic, and nothing of Caffe itself.

This package needs NumPy alone; it imports on a machine without Caffe.
"""

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernel_choice import make_kernels
from caffe_pysgd.update.observers import Observer
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules import (
    NATIVE_NAMES,
    NATIVE_RULES,
    RULES,
    ParameterStep,
    UpdateRule,
    find_rule,
    make_rule,
)
from caffe_pysgd.update.rules.checked import check
from caffe_pysgd.update.stages import Stage
from caffe_pysgd.update.statistics import Statistics
from caffe_pysgd.update.updater import Updater

__all__ = [
    "NATIVE_NAMES",
    "NATIVE_RULES",
    "RULES",
    "HyperParameters",
    "Observer",
    "Parameter",
    "ParameterStep",
    "Stage",
    "Statistics",
    "UpdateRule",
    "Updater",
    "check",
    "find_rule",
    "make_kernels",
    "make_rule",
]
