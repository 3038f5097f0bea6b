"""What Caffe calls its snapshots; apart, so that a layer that asks need not load protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple, Union

HDF5_SUFFIX = ".h5"


def snapshot_names(prefix: Union[str, Path], iteration: int, hdf5: bool) -> Tuple[Path, Path]:
    """Return what Caffe calls the model and the solver state of an iteration."""
    suffix = HDF5_SUFFIX if hdf5 else ""
    start = f"{prefix}_iter_{iteration}"
    return Path(f"{start}.caffemodel{suffix}"), Path(f"{start}.solverstate{suffix}")
