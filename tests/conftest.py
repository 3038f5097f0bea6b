"""What all tests share: the real Caffe, quiet; a folder of their own; the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator

os.environ.setdefault("GLOG_minloglevel", "2")  # before Caffe is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests start Python a thousand times: it need not compile all sources each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from helpers.places import BIN, PROJECT
from hypothesis import HealthCheck, settings

# That a machine is slow is no reason to fail.
SLOWLY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("any machine", **SLOWLY)
settings.load_profile("any machine")

pytest_plugins = ["helpers.browser", "helpers.disks"]  # the fixtures `opened` and `disk`


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for all tests of this run: what Caffe makes of a net is asked once, not by each."""
    base = tmp_path_factory.getbasetemp()
    workers = "PYTEST_XDIST_WORKER" in os.environ
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFFE_PYSGD_CACHE", str((base.parent if workers else base) / "cache"))
        yield


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory: paths in a prototxt are relative to it.

    A module that a test imports from it is forgotten again: the next test has its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        file = os.path.abspath(getattr(module, "__file__", None) or os.sep)
        if file.startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]


@pytest.fixture
def cli(workdir: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run ``caffe-pysgd`` in the working directory as a person does."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
        inherited = {k: v for k, v in os.environ.items() if k != "GLOG_minloglevel"}
        return subprocess.run(
            [str(BIN / "caffe-pysgd"), *map(str, arguments)],
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            close_fds=False,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the project's own, with LeNet and the MNIST LMDBs that it reads."""
    root = tmp_path_factory.mktemp("mnist")
    here = root / "examples" / "mnist"
    here.mkdir(parents=True)
    for file in (PROJECT / "examples" / "mnist").glob("*.*"):
        (here / file.name).write_bytes(file.read_bytes())
    sys.path.insert(0, str(PROJECT / "examples" / "mnist"))
    from create_mnist import create_mnist

    create_mnist(here)
    return root
