"""Which BLAS Caffe's own code calls.

More than one may be loaded: a NumPy from PyPI brings its own. So the symbols are looked up where
Caffe's module looks them up, in itself and in the libraries that it was linked to.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, List

from caffe_pysgd.stock import pycaffe


def blas_of_caffe() -> List[str]:
    """Return the files that hold the BLAS that Caffe calls, and what it says of itself.

    The file is Caffe's own where the BLAS was linked in; none where that left no symbols. Only
    OpenBLAS says more: its version and the processor that its kernels are for.
    """
    library = ctypes.CDLL(pycaffe.library_path())
    names = ("cblas_saxpy", "openblas_get_num_threads", "openblas_get_config")
    functions = {name: getattr(library, name) for name in names if hasattr(library, name)}
    found = [_file_of(function) for function in functions.values()]
    if "openblas_get_config" in functions:
        functions["openblas_get_config"].restype = ctypes.c_char_p
        said = functions["openblas_get_config"]().decode(errors="replace")
        found.append(" ".join(said.split()))
    elif "openblas_get_num_threads" in functions:
        found.append("an OpenBLAS that does not say its version")
    return list(dict.fromkeys(filter(None, found)))


def _file_of(function: Any) -> str:
    """Return the file from which a function was loaded; empty if nobody knows."""
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        begin, end = (int(number, 16) for number in line.split(maxsplit=1)[0].split("-"))
        if begin <= address < end and "/" in line:
            return line[line.index("/") :]
    return ""
