"""What a live pycaffe solver was told: its whole ``SolverParameter``.

pycaffe shows four fields of it (``solver.param``). The others are in the C++ object behind that,
and protobuf itself can write them down. Every address on the way is read through the system, which
refuses a wrong one where a pointer would crash, and the object must say by its virtual table that
it is a ``SolverParameter`` before anything is called on it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
from typing import Any

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe

_VIRTUAL_TABLE = "_ZTVN5caffe15SolverParameterE"
_SERIALIZE = "_ZNK6google8protobuf11MessageLite25SerializeToFileDescriptorEi"

# Boost.Python's instance: after PyObject_VAR_HEAD (24 bytes) its dict, its weak references, and
# its holder; the holder: its virtual table, the next holder, the object.
_HOLDER, _OBJECT = 24 + 16, 16
_POINTER = 8


def solver_parameter(solver: Any) -> Any:
    """Return a copy of the ``SolverParameter`` of a pycaffe solver, and leave the solver alone.

    Raises:
        UserError: it is no pycaffe solver, or this build of Caffe does not let it be read.
    """
    if not isinstance(solver, pycaffe.compiled().Solver):
        raise UserError(f"a solver of pycaffe's is wanted, found {type(solver).__name__}")
    try:
        content = _serialized(solver.param)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            "this build of Caffe does not let a live solver's settings be read; give the solver's "
            'file too: source="solver.prototxt"'
        ) from error
    return pycaffe.messages().SolverParameter.FromString(content)


def _serialized(param: Any) -> bytes:
    library = ctypes.CDLL(pycaffe.library_path())
    table = ctypes.addressof(ctypes.c_char.in_dll(library, _VIRTUAL_TABLE))
    serialize = getattr(library, _SERIALIZE)
    serialize.restype, serialize.argtypes = ctypes.c_bool, (ctypes.c_void_p, ctypes.c_int)
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        address = _pointer(memory, _pointer(memory, id(param) + _HOLDER) + _OBJECT)
        first_function = table + 2 * _POINTER  # behind the offset to the top and the type's name
        if _pointer(memory, address) != first_function:
            raise ValueError("there is no SolverParameter")
    with tempfile.TemporaryFile() as file:
        if not serialize(address, file.fileno()):
            raise ValueError("the SolverParameter is incomplete")
        file.seek(0)
        return file.read()


def _pointer(memory: Any, address: int) -> int:
    content = os.pread(memory.fileno(), _POINTER, address)
    (pointer,) = struct.unpack("P", content)
    return int(pointer)
