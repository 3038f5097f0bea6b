"""The initial weights where the parameters layer owns the parameters: as Caffe fills them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, List, Sequence

from caffe_pysgd.errors import UserError
from caffe_pysgd.run.settings import ParameterSettings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blob

# With this stage, a net has none of our layers.
STAGE = "pysgd_initial"

_TRAIN = 0  # caffe_pb2's, which need not be imported for it


def describe(path: Path, state: Any, random_seed: int) -> str:
    """Return what the parameters layer is told of the net whose weights it begins with."""
    told = {
        "net": str(path),
        "level": state.level,
        "stages": [*state.stage, STAGE],
        "random_seed": random_seed,
    }
    return json.dumps(told)


def initial_blobs(described: str, parameters: Sequence[ParameterSettings]) -> List[Blob]:
    """Return the blobs of the learnable parameters, filled as in the net that is about to be built.

    Args:
        described: as :func:`describe` said it.
        parameters: what was injected.

    Raises:
        UserError: the net has another shape now.
    """
    with ThreadPoolExecutor(1) as thread:
        blobs = thread.submit(_build, json.loads(described), [p.name for p in parameters]).result()
    for parameter, blob in zip(parameters, blobs):
        found = tuple(blob.shape)
        if found != parameter.shape:
            raise UserError(
                f"{parameter.name}: got the shape {found}, expected {parameter.shape}, as when the "
                "net was injected; inject it anew"
            )
    return blobs


def _build(told: Any, names: Sequence[str]) -> List[Blob]:
    """Build the net in a thread: Caffe has its random numbers, and its rank, thread by thread.

    So they begin here where the train net's do, and those are left untouched. Only the first of
    several solvers logs.
    """
    caffe = pycaffe.compiled()
    caffe.set_multiprocess(True)  # else no tap would be set up
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    if told["random_seed"] >= 0:
        caffe.set_random_seed(told["random_seed"])
    net = caffe.Net(told["net"], _TRAIN, told["level"], told["stages"], None)
    layers = dict(zip(net._layer_names, net.layers))
    places = [name.rpartition("/") for name in names]
    return [layers[layer].blobs[int(number)] for layer, _, number in places]
