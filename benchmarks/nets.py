"""The nets that are measured, as prototxt: their data is made up, only their sizes matter."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np

from caffe_pysgd.stock import pycaffe

# BVLC's AlexNet from pool5 on, which is 58.6 of its 61 million values; what is left out takes most
# of the time of forward and backward, and next to none of the update's.
ALEXNET_INPUT = (256, 6, 6)
ALEXNET_OUTPUTS = (4096, 4096, 1000)


def write_net(path: Path, layers: Sequence[str]) -> None:
    """Write a net of these layers."""
    path.write_text(f'name: "{path.stem}"\n' + "\n".join(layers) + "\n")


def data(*shape: int, top: str = "data", value: float = 0) -> str:
    """Return a layer that has data of that shape, all of one value."""
    dims = " ".join(f"dim: {size}" for size in shape)
    filler = f'data_filler {{ type: "constant" value: {value} }}'
    return (
        f'layer {{ name: "{top}" type: "DummyData" top: "{top}" '
        f"dummy_data_param {{ shape {{ {dims} }} {filler} }} }}"
    )


def parameter_layer(number: int, values: int) -> str:
    """Return a layer that is nothing but a parameter."""
    return (
        f'layer {{ name: "p{number}" type: "Parameter" top: "p{number}" '
        f"parameter_param {{ shape {{ dim: {values} }} }} }}"
    )


def fully_connected(
    name: str,
    bottom: str,
    outputs: int,
    lr_mults: Tuple[float, float] = (1, 2),
    filler: str = 'type: "constant" value: 0.01',
) -> str:
    """Return an InnerProduct layer, its weights decayed and its biases not, as BVLC's nets do."""
    weights, biases = lr_mults
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"param {{ lr_mult: {weights} decay_mult: 1 }} param {{ lr_mult: {biases} decay_mult: 0 }} "
        f"inner_product_param {{ num_output: {outputs} weight_filler {{ {filler} }} }} }}"
    )


def _convolution(name: str, bottom: str, outputs: int, lr_mults: Tuple[float, float]) -> str:
    weights, biases = lr_mults
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"param {{ lr_mult: {weights} }} param {{ lr_mult: {biases} }} "
        f"convolution_param {{ num_output: {outputs} kernel_size: 5 }} }} "
        f'layer {{ name: "{name}_pool" type: "Pooling" bottom: "{name}" top: "{name}_pool" '
        f"pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}"
    )


def two_squares(width: int, lr_mults: Tuple[float, float] = (1, 2)) -> List[str]:
    """Return two layers of ``width`` x ``width`` weights, and what they need around them."""
    return [
        data(1, width),
        fully_connected("ip1", "data", width, lr_mults),
        fully_connected("ip2", "ip1", width, lr_mults),
        'layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "data" top: "loss" }',
    ]


def lenet(lr_mults: Tuple[float, float] = (1, 2)) -> List[str]:
    """Return LeNet's parameters, and no data to train them on."""
    return [
        data(1, 1, 28, 28),
        data(1, top="label"),
        _convolution("conv1", "data", 20, lr_mults),
        _convolution("conv2", "conv1_pool", 50, lr_mults),
        fully_connected("ip1", "conv2_pool", 500, lr_mults),
        fully_connected("ip2", "ip1", 10, lr_mults),
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }',
    ]


def alexnet(batch: int, shrink: int = 1) -> List[str]:
    """Return AlexNet from its fully connected layers on.

    Args:
        batch: how many images at a time.
        shrink: divides the numbers of outputs, for a try.
    """
    layers = [data(batch, *ALEXNET_INPUT, value=0.5), data(batch, top="label")]
    bottom = "data"
    for number, outputs in enumerate(ALEXNET_OUTPUTS, start=6):
        layers.append(
            fully_connected(f"fc{number}", bottom, outputs // shrink, filler='type: "xavier"')
        )
        bottom = f"fc{number}"
        if number < 8:
            layers.append(
                f'layer {{ name: "relu{number}" type: "ReLU" bottom: "{bottom}" top: "{bottom}" }} '
                f'layer {{ name: "drop{number}" type: "Dropout" bottom: "{bottom}" '
                f'top: "{bottom}" dropout_param {{ dropout_ratio: 0.5 }} }}'
            )
    loss = f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "{bottom}" bottom: "label" '
    return [*layers, loss + 'top: "loss" }']


def random_images(folder: Path, count: int, *shape: int) -> Path:
    """Write an LMDB of images of noise, and of labels below 10; return it."""
    import lmdb

    random, datum = np.random.RandomState(1), pycaffe.messages().Datum
    with lmdb.open(str(folder / "lmdb"), map_size=1 << 30) as base, base.begin(write=True) as into:
        for number in range(count):
            channels, height, width = shape
            image = datum(channels=channels, height=height, width=width, label=number % 10)
            image.data = random.bytes(channels * height * width)
            into.put(b"%08d" % number, image.SerializeToString())
    return folder / "lmdb"


def cifar10_full(source: Path, batch: int = 100) -> List[str]:
    """Return BVLC's net of that name, over an LMDB of images of 3 x 32 x 32."""
    layers = [
        'layer { name: "cifar" type: "Data" top: "data" top: "label" '
        "transform_param { mean_value: 128 } "
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}'
    ]
    bottom = "data"
    for number, (outputs, pool) in enumerate(((32, "MAX"), (32, "AVE"), (64, "AVE")), start=1):
        behind = f"pool{number}" if number == 1 else f"conv{number}"
        relu = f'layer {{ name: "relu{number}" type: "ReLU" bottom: "{behind}" top: "{behind}" }}'
        layers += [
            f'layer {{ name: "conv{number}" type: "Convolution" bottom: "{bottom}" '
            f'top: "conv{number}" param {{ lr_mult: 1 }} param {{ lr_mult: 2 }} '
            f"convolution_param {{ num_output: {outputs} pad: 2 kernel_size: 5 "
            f'weight_filler {{ type: "gaussian" std: {0.0001 if number == 1 else 0.01} }} }} }}',
            *([] if number == 1 else [relu]),
            f'layer {{ name: "pool{number}" type: "Pooling" bottom: "conv{number}" '
            f'top: "pool{number}" pooling_param {{ pool: {pool} kernel_size: 3 stride: 2 }} }}',
            *([relu] if number == 1 else []),
        ]
        bottom = f"pool{number}"
        if number < 3:
            layers.append(
                f'layer {{ name: "norm{number}" type: "LRN" bottom: "{bottom}" '
                f'top: "norm{number}" lrn_param {{ local_size: 3 alpha: 5e-5 beta: 0.75 '
                "norm_region: WITHIN_CHANNEL } }"
            )
            bottom = f"norm{number}"
    layers.append(fully_connected("ip1", bottom, 10, filler='type: "gaussian" std: 0.01'))
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" '
    return [*layers, loss + 'top: "loss" }']
