"""What Caffe calls its snapshots; apart, so that a layer that asks need not load protobuf."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Tuple, Union

HDF5_SUFFIX = ".h5"

_SNAPSHOT = re.compile(r"_iter_(?P<iteration>\d{1,10})\.(caffemodel|solverstate)(?P<hdf5>\.h5)?")


def snapshot_names(prefix: Union[str, Path], iteration: int, hdf5: bool) -> Tuple[Path, Path]:
    """Return what Caffe calls the model and the solver state of an iteration."""
    suffix = HDF5_SUFFIX if hdf5 else ""
    model = Path(f"{prefix}_iter_{iteration}.caffemodel{suffix}")
    return model, Path(state_name(prefix, iteration, hdf5))


def state_name(prefix: Union[str, Path], iteration: int, hdf5: bool) -> str:
    """Return what Caffe calls the solver state of an iteration."""
    return f"{prefix}_iter_{iteration}.solverstate{HDF5_SUFFIX if hdf5 else ''}"


def kept_record(prefix: Union[str, Path]) -> Path:
    """Return the file in which a run that keeps only some snapshots notes which it wrote."""
    return Path(f"{prefix}_kept.json")


def files_of(prefix: Union[str, Path]) -> Dict[Path, Tuple[int, str]]:
    """Return the models and solver states with this prefix: iteration, and suffix of the format."""
    start = Path(prefix)
    found: Dict[Path, Tuple[int, str]] = {}
    for path in sorted(start.parent.glob("*.*")):  # a model comes before its state
        match = _SNAPSHOT.fullmatch(path.name[len(start.name) :])
        if match and path.name.startswith(start.name):
            found[path] = int(match["iteration"]), match["hdf5"] or ""
    return found


def snapshots_of(prefix: Union[str, Path]) -> List[Path]:
    """Return the solver states with this prefix, of either format, the newest iteration first.

    A model without one, of a run that was killed between the two, stands in its state's place.
    """
    newest = {key: path for path, key in files_of(prefix).items()}
    return [newest[key] for key in sorted(newest, reverse=True)]
