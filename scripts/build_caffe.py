#!/usr/bin/env python3
"""Builds Debian's source package of Caffe for a Python, NumPy and protobuf that are newer than it.

As people who have no package build theirs: with Caffe's own Makefile. The libraries are those of
Debian 12, unpacked into a folder of their own as get_caffe.py does it; C++ is the machine's. There
is neither OpenCV nor LevelDB in it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import bootstrap
import get_caffe
from steps import Failure, Steps, clean_environment, run

RELEASE = "bookworm"
PACKAGES = (
    "python3.11",
    "libpython3.11-dev",
    "python3-pip-whl",
    "python3-distutils",
    "protobuf-compiler",
    "libprotobuf-dev",
    "libgoogle-glog-dev",
    "libgflags-dev",
    "libboost-filesystem-dev",
    "libboost-python-dev",
    "libboost-regex-dev",
    "libboost-system-dev",
    "libboost-thread-dev",
    "libhdf5-dev",
    "liblmdb-dev",
    "libopenblas-pthread-dev",
)
NOT_UNPACKED = re.compile(r"(libc6|libc-dev|linux-libc|libgcc|gcc|libstdc\+\+|dpkg|tar)\b")
# Of protobuf, Python's half of C++'s 3.21.12; `import caffe` asks for the last two.
PYTHON_PACKAGES = ("numpy>=2", "protobuf==4.21.12", "scikit-image", "six")

PATCHES = (
    # protobuf 3.21 takes one limit
    ("src/caffe/util/io.cpp", r"(SetTotalBytesLimit\(\w+), \d+\)", r"\1)"),
)

MAKEFILE_CONFIG = """
CPU_ONLY := 1
USE_OPENCV := 0
USE_LEVELDB := 0
USE_LMDB := 1
WITH_PYTHON_LAYER := {python_layer:d}
BLAS := open
BLAS_INCLUDE := {include}/{machine}/openblas-pthread
BLAS_LIB := {lib}/openblas-pthread
PYTHON_LIBRARIES := boost_python311 python3.11
PYTHON_INCLUDE := {include}/python3.11 {numpy}
PYTHON_LIB := {lib}
INCLUDE_DIRS := $(PYTHON_INCLUDE) {include} {include}/{machine} {include}/hdf5/serial
LIBRARY_DIRS := $(PYTHON_LIB) {lib}/hdf5/serial
LINKFLAGS := -Wl,--disable-new-dtags,-rpath,{lib}:{lib}/openblas-pthread:{lib}/hdf5/serial
BUILD_DIR := build
DISTRIBUTE_DIR := distribute
Q ?= @
"""


def build(place: Path, python_layer: bool = True) -> Path:
    """Makes `place` hold that Caffe, and returns a venv that imports it."""
    stamp = place / "built"
    venv = place / "venv"
    if stamp.exists():
        return venv
    steps = Steps(4)
    prefix = place / "prefix"
    if not prefix.exists():
        fetch(place, prefix, steps)
    steps.begin("a Python with NumPy and protobuf")
    bootstrap.new_venv(str(prefix / "usr/bin/python3.11"), venv)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q"]
    run([*pip, *PYTHON_PACKAGES], "cannot install NumPy and protobuf")
    steps.begin("compile Caffe: 5 minutes on two cores")
    source = compile_caffe(place, prefix, venv, python_layer)
    steps.begin("let the venv import it")
    packages = next(venv.glob("lib/python3.*/site-packages"))
    (packages / "caffe.pth").write_text(f"{source / 'python'}\n")
    (venv / "bin/caffe").symlink_to(source / "build/tools/caffe")
    stamp.touch()
    return venv


def fetch(place: Path, prefix: Path, steps: Steps) -> None:
    """Gets the source and the libraries, and unpacks both."""
    get_caffe.check_machine()
    work = place / "work"
    mirror = os.environ.get(get_caffe.MIRROR_VARIABLE) or get_caffe.host_mirror()
    apt = get_caffe.Apt(work, mirror, PACKAGES, RELEASE, source_release=get_caffe.RELEASE)
    steps.begin(f"get Caffe's source and the libraries of {RELEASE}")
    apt.update(steps)
    apt.download(steps)
    source = place / "source"
    source.mkdir(exist_ok=True)
    apt.source("caffe", source)
    wanted = [one for one in apt.packages() if not NOT_UNPACKED.match(one.name)]
    unpacked = place / "unpacked"
    get_caffe.unpack(wanted, apt.archives, unpacked, steps)
    unpacked.rename(prefix)
    shutil.rmtree(work)


def compile_caffe(place: Path, prefix: Path, venv: Path, python_layer: bool) -> Path:
    """Compiles the library, the programs and pycaffe; returns the folder of the source."""
    source = next(path for path in (place / "source").iterdir() if path.is_dir())
    for name, pattern, replacement in PATCHES:
        file = source / name
        file.write_text(re.sub(pattern, replacement, file.read_text()))
    lib = next(prefix.glob("usr/lib/*/libglog.so")).parent
    numpy = next(venv.glob("lib/python3.*/site-packages/numpy/_core/include"), None)
    if numpy is None:
        raise Failure(f"{venv} has no headers of NumPy: remove it, and run this again")
    config = MAKEFILE_CONFIG.format(
        include=prefix / "usr/include",
        lib=lib,
        machine=lib.name,
        numpy=numpy,
        python_layer=python_layer,
    )
    (source / "Makefile.config").write_text(config)
    # protoc is one of the packages.
    path = os.pathsep.join([str(prefix / "usr/bin"), os.environ.get("PATH", os.defpath)])
    run(
        ["make", "-C", str(source), f"-j{os.cpu_count()}", "lib", "tools", "pycaffe"],
        f"Caffe does not compile in {source} (are g++ and make installed?)",
        clean_environment(LD_LIBRARY_PATH=str(lib), PATH=path),
    )
    return source
