"""Which layers an HDF5 snapshot cannot hold: their names are paths there."""

from __future__ import annotations

from typing import Collection, Dict, Sequence, Set, Tuple

_Path = Tuple[str, ...]

Blob = Tuple[str, int]
"""A parameter of a net: the name of its layer, and its place there."""


def unfit_layer(layers: Sequence[str], owned: Collection[Blob], shared: Collection[Blob]) -> str:
    """Return what is wrong with a net for an HDF5 snapshot; nothing if that can hold it.

    ``Net::ToHDF5`` makes a group for each layer and in it a dataset for each parameter that the
    layer owns, ``CopyTrainedLayersFromHDF5`` goes by the groups in ``data``. To HDF5 a name is a
    path: a ``/`` in it leads into another group, which must be there by then.

    Args:
        layers: the names of all layers in Caffe's order, those that it adds itself included.
        owned: the parameters that are written.
        shared: those that share another one, which are not.
    """
    there: Set[_Path] = {("data",)}
    groups: Dict[str, _Path] = {}
    for name in layers:
        path = _path(name)
        if name in groups or path in there or not path or (path[:-1] and path[:-1] not in there):
            return f"{_called(name, groups)}, and Caffe would abort at the first snapshot"
        groups[name] = path
        there.add(path)
        there.update((*path, str(index)) for layer, index in owned if layer == name)
    for name, path in groups.items():
        own = [index for layer, index in owned if layer == name]
        if own and path != ("data", name):
            return f"layer '{name}' would not be found again: its name is a path to HDF5"
        held = [other for other in there if other[:-1] == path]
        more = [layer for layer, other in groups.items() if other in held]
        blobs = len(own) + sum(layer == name for layer, _ in shared)
        if path == ("data", name) and len(held) > blobs:
            return f"layer '{more[0]}' would lie inside of '{name}', and Caffe could not load that"
    return ""


def _path(name: str) -> _Path:
    """Return where HDF5 makes a group, or nothing where it makes none.

    Empty parts and ``.`` say nothing, but for a ``.`` at the end, and a ``/`` begins anew.
    """
    parts = [part for part in name.split("/") if part]
    if not parts or parts[-1] == ".":
        return ()
    path = tuple(part for part in parts if part != ".")
    return path if name.startswith("/") else ("data", *path)


def _called(name: str, before: Collection[str]) -> str:
    if not name:
        return "a layer has no name"
    if name in before:
        return f"two layers are called '{name}'"
    return f"layer '{name}' has a name that is no path to HDF5"
