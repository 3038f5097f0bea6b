"""Compiled passes as object code: made by numba once, kept on disk, loaded without numba.

Importing numba takes longer than a small net takes to start, so what it compiled is kept as an
object file, under a name that says for which source, compiler and processor. A file is written
beside and renamed, and its name decides its content: any number of processes may start at once.
Where no folder can be written, each process compiles for itself.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple

from caffe_pysgd.update.fused.program import Program

SYMBOL = "caffe_pysgd_pass"
_HERE = Path(__file__).parent

# What a pass may call besides libm's powf. LLVM says nothing about a function that it does not
# find, and leaves the whole code unrelocated: each is looked up here and told to it.
_OF_LIBC = ("memset", "memcpy", "sqrtf")

# What numba would call to free an array that it made. A pass makes none, but from 0.57 on numba
# does not see that, and its runtime is not there when a kept pass is loaded.
_FREES_AN_ARRAY = re.compile(r"declare (void @NRT_MemInfo_call_dtor\([^)]*\)).*")

_ALIVE: List[Any] = []


class Variant(NamedTuple):
    """Which pass: what the rule does, how weights decay, how it rounds, and what is counted."""

    program: Program
    l1: bool
    rounds_once: bool
    exact: bool
    checked: bool


def available() -> bool:
    """Return whether passes can be compiled here."""
    return importlib.util.find_spec("numba") is not None


@cache
def load(variant: Variant) -> Callable[..., int]:
    """Return the compiled pass as a C function; it releases the GIL."""
    import llvmlite.binding as llvm

    content = _object(variant)
    for name in _OF_LIBC:
        symbol = getattr(ctypes.CDLL("libm.so.6"), name)  # which knows libc's, too
        llvm.add_symbol(name, ctypes.cast(symbol, ctypes.c_void_p).value)
    object_file = llvm.ObjectFileRef.from_data(content)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(object_file)
    engine.finalize_object()
    _ALIVE.extend([content, object_file, engine])  # the code lives as long as these
    address = engine.get_function_address(SYMBOL)
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 9)
    nowhere = ctypes.create_string_buffer(
        64
    )  # for numba's own result and exception, which it has not
    _ALIVE.append(nowhere)
    here = ctypes.addressof(nowhere)
    return partial(function(address), here, here + 32)


def _machine() -> Any:
    """Return LLVM's idea of this processor, with all that it can do."""
    import llvmlite.binding as llvm

    llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="static",
        codemodel="jitdefault",
        jit=True,
    )


def _object(variant: Variant) -> bytes:
    name = f"pass-{_fingerprint(variant)}.o"
    for folder in _folders():
        content = _kept(folder / name)
        if content:
            return content
    content = _compile(variant)
    for folder in _folders():
        if _keep(folder / name, content):
            break
    return content


def _fingerprint(variant: Variant) -> str:
    """Return a name for everything that decides the object code."""
    import llvmlite
    import llvmlite.binding as llvm

    digest = hashlib.sha256()
    for said in (
        repr(tuple(variant)),
        sys.version,
        llvmlite.__version__,
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
    ):
        digest.update(said.encode() + b"\0")
    for source in sorted(_HERE.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _folders() -> Iterator[Path]:
    """The folders that may keep object code, the first choice first."""
    said = os.environ.get("CAFFE_PYSGD_CACHE")
    if said:
        yield Path(said)
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(home, "caffe-pysgd")
    yield Path(tempfile.gettempdir(), f"caffe-pysgd-{os.getuid()}")


def _kept(path: Path) -> bytes:
    """Return the object code in a file, or nothing: LLVM ends the process over a damaged one."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_uid not in (0, os.getuid()):
                return b""
            checksum, content = file.read(32), file.read()
    except OSError:
        return b""
    return content if hashlib.sha256(content).digest() == checksum else b""


def _keep(path: Path, content: bytes) -> bool:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            return False
        handle, beside = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(beside, path)
        except OSError:
            os.unlink(beside)
            raise
    except OSError:
        return False
    return True


def _compile(variant: Variant) -> bytes:
    import llvmlite.binding as llvm
    from numba import cfunc

    from caffe_pysgd.update.fused.passes import SIGNATURE, make_pass

    _allow_many_arrays()
    compiled = cfunc(SIGNATURE, error_model="numpy")(make_pass(*variant))
    assembly = _FREES_AN_ARRAY.sub(r"define \1 { ret void }", compiled.inspect_llvm())
    module = llvm.parse_assembly(assembly)
    # Keep the function itself, which takes numba's two pointers before ours, and not the wrapper
    # around it, which needs the whole of numba to be there.
    (name,) = (
        function.name
        for function in module.functions
        if not function.is_declaration and f"cfunc.{function.name}" == compiled.native_name
    )
    for function in module.functions:
        if not function.is_declaration and function.name != name:
            function.linkage = llvm.Linkage.internal
    passes = llvm.create_module_pass_manager()
    passes.add_global_dce_pass()
    passes.run(module)
    needed = [f.name for f in module.functions if f.is_declaration]
    beyond = [n for n in needed if not n.startswith("llvm.") and n not in _OF_LIBC]
    assert not beyond, f"it calls {', '.join(beyond)}"
    text = str(module).replace(name, SYMBOL)
    return bytes(_machine().emit_object(llvm.parse_assembly(text)))


@cache
def _allow_many_arrays() -> None:
    """Let LLVM vectorise loops over many arrays, for which it compares all their addresses.

    For this process; LLVM takes the option once.
    """
    import llvmlite.binding as llvm

    llvm.set_option("caffe-pysgd", "--runtime-memory-check-threshold=64")
