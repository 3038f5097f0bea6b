"""Caffe's update in Python: the arithmetic, and nothing of Caffe itself.

This package needs NumPy alone; it imports on a machine without Caffe.
"""

from caffe_pysgd.update.hyperparameters import HyperParameters
from caffe_pysgd.update.kernels import make_kernels
from caffe_pysgd.update.observers import Observer, Stage
from caffe_pysgd.update.parameter import Parameter
from caffe_pysgd.update.rules import RULES, SGD, UpdateRule
from caffe_pysgd.update.updater import Updater

__all__ = [
    "RULES",
    "SGD",
    "HyperParameters",
    "Observer",
    "Parameter",
    "Stage",
    "UpdateRule",
    "Updater",
    "make_kernels",
]
