"""Loggers: what a run tells others while it trains."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import List

from caffe_pysgd.errors import SettingError
from caffe_pysgd.hosts.build import let_import
from caffe_pysgd.hosts.loggers.logger import Logger
from caffe_pysgd.optional import needed
from caffe_pysgd.run.settings import UpdateSettings
from caffe_pysgd.update.plugins import import_by_name

LOGGERS = {
    "tensorboard": ("tensorboardX", "TensorBoard"),
    "csv": ("csv", "CSV"),
    "mlflow": ("mlflow", "MLflow"),
}
"""The loggers by name: the module that each needs, and its class."""


def make_loggers(settings: UpdateSettings) -> List[Logger]:
    """Return the loggers that a run asks for, which begin with its first update.

    Raises:
        UserError: one is not there, or what it needs is not installed.
    """
    told = settings.loggers
    if told is None:
        return []
    let_import(settings)
    return [_find(name)(settings, Path(told.folder), told.every) for name in told.names]


def _find(name: str) -> type[Logger]:
    module, colon, attribute = name.partition(":")
    if colon:
        found = import_by_name("loggers", module, attribute)
        if not (isinstance(found, type) and issubclass(found, Logger)):
            raise SettingError("loggers", name, "a subclass of caffe_pysgd.Logger")
        return found
    package, attribute = LOGGERS[name]
    needed(package, f"loggers: {name} needs {package}", name)
    found = getattr(import_module(f"{__name__}.{name}_logger"), attribute)
    assert isinstance(found, type) and issubclass(found, Logger)
    return found
