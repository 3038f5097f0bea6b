"""Which Caffe this is: what a process has to load it for, and is kept."""

from __future__ import annotations

import json
import platform
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List

from caffe_pysgd.errors import UserError
from caffe_pysgd.files import file_hash
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.answers import Question, stamp
from caffe_pysgd.stock.blas import blas_of_caffe, memory_map
from caffe_pysgd.stock.helper import run_with_caffe


@dataclass(frozen=True)
class ThisCaffe:
    """What is known of the Caffe at hand.

    Attributes:
        version: what pycaffe says.
        files: its libraries, with their SHA-256.
        blas: the files of the BLAS that it calls, and what that says of itself.
        layer_types: the layers that it knows.
    """

    version: str
    files: Dict[str, str]
    blas: List[str]
    layer_types: List[str]


def this_caffe() -> ThisCaffe:
    """Return which Caffe this is.

    Raises:
        UserError: it cannot be loaded.
    """
    question = _question()
    answer = question.kept()
    if answer is None:
        answer = _ask()
        question.keep(answer, json.loads(answer)["files"])
    return ThisCaffe(**json.loads(answer))


def identity() -> str:
    """Return what differs from one Caffe to another; nothing where it cannot be loaded."""
    try:
        files = this_caffe().files
    except UserError:
        return ""
    return json.dumps({path: stamp(path) for path in files})


def blas() -> List[str]:
    """Return the BLAS that Caffe calls, in this process where it is loaded."""
    return _loaded_blas() if pycaffe.is_loaded() else this_caffe().blas


def is_known() -> bool:
    """Return whether which Caffe this is can be told without asking it."""
    return _question().kept() is not None


def _question() -> Question:
    module = pycaffe.find_library()
    # The BLAS chooses its kernels by the processor.
    where = (platform.node(), json.dumps([module, stamp(module), stamp("/etc/ld.so.cache")]))
    return Question(_described, *where)


def _ask() -> bytes:
    if pycaffe.is_loaded():
        return json.dumps(asdict(_described())).encode()
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        answer = Path(directory, "caffe.json")
        outcome = run_with_caffe(_describe_here, str(answer))
        if outcome.status != 0:
            raise UserError(pycaffe.failure_reason(outcome.log))
        return answer.read_bytes()


def _describe_here(answer: str) -> None:
    Path(answer).write_text(json.dumps(asdict(_described())), encoding="utf-8")


def _described() -> ThisCaffe:
    caffe = pycaffe.compiled()
    files = dict.fromkeys([caffe.__file__, *_loaded(re.compile(r"/libcaffe[^/]*\.so"))])
    return ThisCaffe(
        str(getattr(caffe, "__version__", "")),
        {path: file_hash(Path(path)) for path in files},
        _loaded_blas(),
        list(caffe.layer_type_list()),
    )


def _loaded_blas() -> List[str]:
    return blas_of_caffe() + _loaded(re.compile(r"/libcublas"))


def _loaded(pattern: re.Pattern[str]) -> List[str]:
    """Return the libraries in this process's memory whose path matches."""
    paths = {line[line.index("/") :] for line in memory_map() if "/" in line}
    return sorted(path for path in paths if pattern.search(path))
