"""Write the audit of a large net without its training: 202 parameter blobs, as a ResNet has them.

The rows go through the project's own writer, in its schema; only the values are drawn. A layer that
is dead, one that barely moves and one whose norm grows are planted, so that a report has something
to name.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from caffe_pysgd.audit.writer import Writer
from caffe_pysgd.run.settings import AuditSettings

QUANTITIES = ("data", "gradient", "history", "regularized", "update")
DEAD, SLOW, GROWING = "scale3b_branch2a/0", "conv2a_branch1/0", "conv5b_branch2c/0"


def parameters() -> List[Tuple[str, Tuple[int, ...]]]:
    """Return names and shapes: 33 convolutions with BatchNorm and Scale, two classifiers."""
    convolutions = [("1", 3, 64, 7)]
    channels = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 2), (256, 2), (512, 2)], 2):
        for block in "abc"[:blocks]:
            name = f"{stage}{block}_branch"
            if block == "a":
                convolutions.append((f"{name}1", channels, 4 * width, 1))
            convolutions += [
                (f"{name}2a", channels, width, 1),
                (f"{name}2b", width, width, 3),
                (f"{name}2c", width, 4 * width, 1),
            ]
            channels = 4 * width
    convolutions.append(("6", channels, 512, 1))
    blobs: List[Tuple[str, Tuple[int, ...]]] = []
    for name, before, after, side in convolutions:
        blobs.append((f"conv{name}/0", (after, before, side, side)))
        blobs += [(f"bn{name}/0", (after,)), (f"bn{name}/1", (after,)), (f"bn{name}/2", (1,))]
        blobs += [(f"scale{name}/0", (after,)), (f"scale{name}/1", (after,))]
    for name in ("fc1000", "fc_aux"):
        blobs += [(f"{name}/0", (1000, 512)), (f"{name}/1", (1000,))]
    return blobs


def write(
    file: Path,
    iterations: int,
    base_lr: float = 0.1,
    seed: int = 1,
    histograms: int = 1000,
    diverges_at: Optional[int] = None,
    thin_after: int = 0,
) -> None:
    """Write an audit of every iteration.

    Args:
        file: the audit; one that is there is kept under another name.
        iterations: how many updates.
        base_lr: also told in the manifest, as the solver's.
        seed: of the values.
        histograms: at each n-th iteration those of gradient, update and weights.
        diverges_at: from where on the loss grows and the gradients are not finite in the end.
        thin_after: as in a YAML's ``audit``.
    """
    blobs = parameters()
    names = [name for name, _ in blobs]
    statistics = np.array([name.startswith("bn") for name in names])
    counts = np.array([math.prod(shape) for _, shape in blobs])
    manifest = {
        "source": "resnet.yaml",
        "rule": "sgd",
        "host": "in-net",
        "configuration": {"solver": "resnet_solver.prototxt", "audit": {"every": 1}},
        "hyperparameters": {"momentum": 0.9, "weight_decay": 0.0001},
        "solver": f"base_lr: {base_lr:g}\nmax_iter: {iterations}\nrandom_seed: {seed}\n",
        "net": 'name: "ResNet"\n',
        "random_seed": seed,
        "statistics": [name for name, of in zip(names, statistics) if of],
        "audit": {"every": 1, "histograms": histograms, "max_iter": iterations},
    }
    rows = [
        (number, name, json.dumps(shape), math.prod(shape), 0.0 if of else 1.0, 1.0, "sgd")
        for number, ((name, shape), of) in enumerate(zip(blobs, statistics))
    ]
    draw = np.random.RandomState(seed)
    scale = np.sqrt(counts) * 0.05
    pace = 1e-3 * np.exp(draw.normal(0, 0.7, len(names))) * base_lr / 0.1
    pace[names.index(SLOW)] = 1e-9
    writer = Writer(file, fresh=True)
    try:
        writer.begin_session(0, manifest, rows)
        smoothed = 7.0
        batch: List[Dict[str, List[Any]]] = []
        thin = AuditSettings(
            file=str(file), manifest="", every=1, histograms=histograms, probes=(), weights_every=0,
            max_iter=iterations, average_loss=20, snapshot_prefix="", hdf5=False,
            thin_after=thin_after,
        )  # fmt: skip
        for at in filter(thin.is_due, range(iterations)):
            rate = base_lr * 0.1 ** (3 * at // iterations)
            loss = 6.5 * math.exp(-3 * at / iterations) + 0.4 + 0.15 * draw.rand()
            lost = False
            if diverges_at is not None and at >= diverges_at:
                loss *= math.exp(0.5 * (at - diverges_at))
                lost = loss > 1e4
            smoothed += (loss - smoothed) / 20
            ratio = pace * rate / base_lr * np.exp(draw.normal(0, 0.2, len(names)))
            data = scale * (1 + 0.05 * at / iterations)
            data[names.index(GROWING)] *= 1 + 9 * at / iterations
            norms = {
                "data": data,
                "update": data * ratio,
                "history": data * ratio * 3,
                "gradient": data * ratio / rate * np.exp(draw.normal(0, 0.1, len(names))),
            }
            norms["regularized"] = norms["gradient"] * 1.01
            norms["gradient"][names.index(DEAD)] = 0.0
            zeros = {"gradient": np.where(norms["gradient"], counts // 50, counts)}
            figures = []
            for quantity in QUANTITIES:
                l2 = norms[quantity]
                each = l2 / np.sqrt(counts)
                nonfinite = counts if lost and quantity != "data" else np.zeros_like(counts)
                columns = (
                    l2, each * draw.normal(0, 0.02, len(names)), -3.2 * each, 3.4 * each,
                    zeros.get(quantity, np.zeros_like(counts)), nonfinite,
                )  # fmt: skip
                figures += [
                    (at, number, quantity, *row)
                    for number, row in enumerate(
                        zip(*((column + 0).tolist() for column in columns))
                    )
                ]
            told = [None if of else value for value, of in zip(ratio.tolist(), statistics)]
            iteration: Dict[str, List[Any]] = {
                "updates": [
                    (at, number, rate * (not of), value)
                    for number, (value, of) in enumerate(zip(told, statistics.tolist()))
                ],
                "figures": figures,
                "iterations": [
                    (at, rate, loss, smoothed, float(np.sqrt((norms["gradient"] ** 2).sum())),
                     None, 0.31 + 0.01 * draw.rand(), 0.04, None)
                ],
            }  # fmt: skip
            if histograms and at % histograms == 0:
                iteration["histograms"] = [
                    (at, number, quantity, *_histogram(draw, norms[quantity][number], count))
                    for number, count in enumerate(counts.tolist())
                    for quantity in ("gradient", "update", "data")
                ]
            if at and at % max(1, iterations // 12) == 0:
                done = at / iterations
                iteration["tests"] = [
                    (at, net, position, name, value)
                    for net in (0, 1)
                    for position, (name, value) in enumerate(
                        [
                            (
                                "accuracy",
                                (0.76 - 0.1 * net) * (1 - math.exp(-4 * done)) * (1 + base_lr / 5),
                            ),
                            ("loss", loss * (1.05 + 0.1 * net)),
                        ]
                    )
                ]
            if lost:
                message = (
                    f"conv1/0: 9408 of 9408 values of the gradient at iteration {at} are not finite"
                )
                iteration["events"] = [(at, at, "nonfinite", message)]
            batch.append(iteration)
            if len(batch) == 20:
                writer.add_iterations(batch)
                batch = []
        writer.add_iterations(batch)
    finally:
        writer.close()


def _histogram(draw: Any, l2: float, count: int) -> Tuple[float, float, str]:
    width = 3.3 * l2 / math.sqrt(count) or 1.0
    shape = np.exp(-0.5 * (np.linspace(-3.3, 3.3, 64) + draw.normal(0, 0.1)) ** 2)
    bins = np.floor(shape / shape.sum() * count).astype(int)
    return -width, width, json.dumps(bins.tolist())


def main() -> None:
    """Write one as told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--base-lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--histograms", type=int, default=1000)
    parser.add_argument("--diverges-at", type=int)
    parser.add_argument("--thin-after", type=int, default=0)
    arguments = parser.parse_args()
    write(
        arguments.file, arguments.iterations, arguments.base_lr, arguments.seed,
        arguments.histograms, arguments.diverges_at, arguments.thin_after,
    )  # fmt: skip


if __name__ == "__main__":
    main()
