"""Layers that write files; a net that is only looked at must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable

from caffe_pysgd.stock.net_file import read_net


def silence_writers(net: Any) -> bool:
    """Let no layer of a ``NetParameter`` write its output into a file; return whether one did.

    ``HDF5Output`` is the only one of Caffe's. ``Silence`` takes its place, which has the same
    bottoms and no tops either: the rest of the net, and its bits, stay as they are.
    """
    writers = [layer for layer in net.layer if layer.type == "HDF5Output"]
    for layer in writers:
        layer.type = "Silence"
        layer.ClearField("hdf5_output_param")
    return bool(writers)


def include_test_nets(solver: Any) -> None:
    """Let the test nets that are files be part of a ``SolverParameter``.

    Caffe builds those that are part of it first, and then the files.

    Raises:
        UserError: a file cannot be read.
    """
    for path in solver.test_net:
        solver.test_net_param.add().CopyFrom(read_net(Path(path)))
    del solver.test_net[:]


def opened_to_write(nets: Iterable[Any]) -> str:
    """Return the name of a layer that opens its data to write; nothing if there is none.

    LevelDB has no other way: it makes a folder that is not there, and moves its log aside.
    """
    for net in nets:
        for layer in net.layer:
            if layer.type == "Data" and layer.data_param.backend == layer.data_param.LEVELDB:
                return str(layer.name)
    return ""
