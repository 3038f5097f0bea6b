"""Passes as machine code: LLVM compiles each for this processor when it is first used.

A pass is written in vectors already, so that no optimizer has to run: compiling takes milliseconds.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import ctypes
import importlib.util
from contextlib import suppress
from functools import lru_cache
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from caffe_pysgd.update.fused.program import Program

_ALIVE: List[Any] = []


class Variant(NamedTuple):
    """Which pass.

    Attributes:
        program: what the rule does.
        l1: whether weights decay by their signs.
        scaled: whether gradients are clipped or normalized.
        rounds_once: whether axpy is a fused multiply-add.
        exact: whether powers are libm's; else they are the correctly rounded ones.
        checked: whether values of the update that are not finite are counted and noted.
        figures: whether figures are taken.
    """

    program: Program
    l1: bool
    scaled: bool
    rounds_once: bool
    exact: bool
    checked: bool
    figures: bool


def why_not() -> str:
    """Return why no pass can be compiled here, or ""."""
    if not importlib.util.find_spec("llvmlite"):
        return "llvmlite is not installed; pip install 'caffe-pysgd[fused]'"
    try:
        processor()
    except Exception as error:  # a mix of versions can raise anything
        return f"llvmlite does not work here: {in_one_line(error)}"
    return ""


def in_one_line(error: Exception) -> str:
    """Return what an exception says, not too much of it."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@lru_cache(maxsize=None)
def load(variant: Variant) -> Callable[..., None]:
    """Return the compiled pass as a C function; it releases the GIL."""
    import llvmlite.binding as llvm

    from caffe_pysgd.update.fused import passes

    name, features = processor()
    has_fma = features.get("fma", True)  # only x86 has processors without, and that name for it
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=name,
        features=",".join(("+" if has else "-") + feature for feature, has in features.items()),
        opt=3,
        reloc="static",
        codemodel="jitdefault",
        jit=True,
    )
    module = llvm.parse_assembly(passes.assembly(variant, has_fma))
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _ALIVE.append(engine)  # the code lives as long as this
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * passes.ARGUMENTS)
    return kind(engine.get_function_address(passes.SYMBOL))


@lru_cache(maxsize=None)
def processor() -> Tuple[str, Dict[str, bool]]:
    """Return LLVM's name of this processor, and what it can do; make LLVM ready."""
    import llvmlite.binding as llvm

    with suppress(RuntimeError):  # newer ones do it by themselves, and refuse to be asked
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())
