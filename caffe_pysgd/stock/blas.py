"""Which BLAS Caffe's own code calls.

More than one may be loaded: a NumPy from PyPI brings its own. So the symbols are looked up where
Caffe's module looks them up, in itself and in the libraries that it was linked to.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Iterable, List

from caffe_pysgd.stock import pycaffe


def blas_of_caffe() -> List[str]:
    """Return the files that hold the BLAS that Caffe calls, and what it says of itself.

    The file is Caffe's own where the BLAS was linked in; none where that left no symbols. Only
    OpenBLAS says more: its version and the processor that its kernels are for.
    """
    library = ctypes.CDLL(pycaffe.library_path())
    names = ("cblas_saxpy", "openblas_get_num_threads", "openblas_get_config")
    functions = {name: getattr(library, name) for name in names if hasattr(library, name)}
    found = _files_of(functions.values())
    if "openblas_get_config" in functions:
        functions["openblas_get_config"].restype = ctypes.c_char_p
        said = functions["openblas_get_config"]().decode(errors="replace")
        found.append(" ".join(said.split()))
    elif "openblas_get_num_threads" in functions:
        found.append("an OpenBLAS that does not say its version")
    return list(dict.fromkeys(found))


def _files_of(functions: Iterable[Any]) -> List[str]:
    """Return the files from which functions were loaded, without those of which nobody knows."""
    addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]
    found = {}
    for line in memory_map():
        begin, end = (int(number, 16) for number in line.split(maxsplit=1)[0].split("-"))
        if "/" in line:
            here = (address for address in addresses if begin <= address < end)
            found.update(dict.fromkeys(here, line[line.index("/") :]))
    return [found[address] for address in addresses if address in found]


def memory_map() -> List[str]:
    """Return what is where in this process's memory, in the system's lines."""
    try:
        return Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return []
