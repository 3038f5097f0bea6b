"""Where the learnable blobs of a net keep their values, as long as the update runs."""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import UserError
from caffe_pysgd.stock.protocols import Blob
from caffe_pysgd.update import Parameter, Updater


def never_free(solver: Any) -> None:
    """Let a pycaffe solver, and the memory of its nets, outlive the interpreter.

    Over NaN, max pooling finds no maximum, and its backward writes in front of its memory: to free
    that would end the process.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(solver))


class Memory:
    """Where the learnable blobs keep their values.

    A user of the net can move them: ``net.share_with(other)``, ``blob.reshape(...)``. As long as
    nobody did, the updater's arrays stay the same objects.

    Args:
        updater: its parameters are the blobs' arrays.
        blobs: the learnable parameters' blobs, in Caffe's order.
    """

    def __init__(self, updater: Updater, blobs: Sequence[Blob]) -> None:
        self._kernels, self._parameters, self._blobs = updater.kernels, updater.parameters, blobs
        self._places = [(0, 0, 0)] * len(blobs)
        self._kernels.pin(array for state in updater.states for array in state.values())
        self.fetch()

    def fetch(self) -> None:
        """Let the updater's parameters be the blobs' memory of now.

        Asking a blob for its arrays is also what brings them back from a GPU.

        Raises:
            UserError: a blob has another number of values than at the start.
        """
        for number, blob in enumerate(self._blobs):
            data, diff = blob.data, blob.diff
            place = (_address(data), _address(diff), data.size)
            if place != self._places[number]:
                self._adopt(self._parameters[number], data.reshape(-1), diff.reshape(-1))
                self._places[number] = place

    def _adopt(self, parameter: Parameter, data: Floats, diff: Floats) -> None:
        if data.size != parameter.count:
            raise UserError(
                f"{parameter.name}: its blob was reshaped and has {data.size} values now, the "
                f"update began with {parameter.count}; make a new solver for a new shape"
            )
        parameter.data, parameter.diff = data, diff
        self._kernels.pin((data, diff))


def _address(array: Floats) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
