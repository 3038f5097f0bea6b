"""Which files layers read when a net is set up: by these, its shapes may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, List, Optional

# Set up from nothing but the prototxt and their bottoms.
_NAMES = (
    "AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss "
    "Convolution Crop Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter "
    "Flatten HingeLoss Im2col InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData "
    "MultinomialLogisticLoss PReLU Parameter Pooling Power RNN ReLU Reduction Reshape SPP Scale "
    "Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH "
    "Threshold Tile"
)
_READ_NONE = frozenset(_NAMES.split())


def files_read(nets: Iterable[Any]) -> Optional[List[str]]:
    """Return the files; None where a layer may read others, as one in Python may.

    Args:
        nets: the ``NetParameter`` of each.
    """
    files: List[str] = []
    for net in nets:
        for layer in net.layer:
            try:
                its = _files_of(layer)
            except OSError:  # Caffe will say so
                return None
            if its is None:
                return None
            files += [*its, *filter(None, [layer.transform_param.mean_file])]
    return files


def _files_of(layer: Any) -> Optional[List[str]]:
    if layer.type in _READ_NONE:
        return []
    if layer.type == "Data" and layer.data_param.backend == layer.data_param.LMDB:
        return [f"{layer.data_param.source}/data.mdb"]
    if layer.type == "HDF5Data":
        source = layer.hdf5_data_param.source
        return [source, *_read(source).split()]
    if layer.type == "ImageData":
        return _first_image(layer.image_data_param)
    if layer.type == "InfogainLoss":
        return list(filter(None, [layer.infogain_loss_param.source]))
    return None


def _first_image(param: Any) -> Optional[List[str]]:
    """Return the list and the image that gives the shape; None where chance decides which."""
    if param.shuffle or param.rand_skip:
        return None
    line = _read(param.source).partition("\n")[0]
    return [param.source, param.root_folder + (line.rpartition(" ")[0] or line)]


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
