#!/usr/bin/env python3
"""Makes the LMDBs of 10,000 MNIST digits that LeNet's Data layers read, as create_mnist.sh does.

They hold what Caffe's convert_mnist_data writes, which not every Caffe has. Run it with the Python
of `.venv`:

    .venv/bin/python examples/mnist/create_mnist.py
"""

from __future__ import annotations

import gzip
import math
import sys
import tempfile
import zlib
from pathlib import Path

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe

EXAMPLE = Path(__file__).resolve().parent
SIDE = 28
PIXELS = SIDE * SIDE
MAP_SIZE = 1 << 28  # an upper bound of the file's size; what is not used takes no space
DATABASES = {"mnist_train_lmdb": "train", "mnist_test_lmdb": "t10k"}


def create_mnist(directory: Path) -> None:
    """Makes `mnist_train_lmdb` and `mnist_test_lmdb` in `directory`, those that are not there yet.

    Each is built elsewhere and renamed, so one that is there is whole.
    """
    for name, digits in DATABASES.items():
        database = directory / name
        if not (database / "data.mdb").is_file():
            print(f"making {database}", file=sys.stderr)
            create_database(database, EXAMPLE / "data", digits)


def create_database(database: Path, data: Path, digits: str) -> None:
    """Turns the gzipped images and labels of `digits` into an LMDB."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise UserError("the package lmdb is missing: pip install lmdb") from error
    images, labels = read_digits(data, digits)
    Datum = pycaffe.messages().Datum
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mnist-", dir=database.parent) as temporary:
        unfinished = Path(temporary) / database.name
        with lmdb.open(str(unfinished), map_size=MAP_SIZE) as base, base.begin(write=True) as into:
            for number, label in enumerate(labels):
                image = images[number * PIXELS : (number + 1) * PIXELS]
                datum = Datum(channels=1, height=SIDE, width=SIDE, data=image, label=label)
                into.put(b"%08d" % number, datum.SerializeToString())
        put_in_place(unfinished, database)


def read_digits(data: Path, digits: str) -> tuple[bytes, bytes]:
    """Returns the pixels of the images and their labels, checked: a byte each."""
    images = gunzip(data / f"{digits}-images-idx3-ubyte.gz", 0x803, (SIDE, SIDE))
    labels = gunzip(data / f"{digits}-labels-idx1-ubyte.gz", 0x801, ())
    if len(images) != PIXELS * len(labels) or not labels:
        raise UserError(
            f"{data}: there are {len(images) // PIXELS} {digits} images and {len(labels)} labels; "
            "restore both with git checkout"
        )
    return images, labels


def gunzip(archive: Path, magic: int, shape: tuple[int, ...]) -> bytes:
    """Returns what a gzipped IDX file holds behind its header, if the two fit."""
    try:
        content = gzip.decompress(archive.read_bytes())
    except (gzip.BadGzipFile, zlib.error, EOFError, FileNotFoundError) as error:
        raise UserError(
            f"{archive} is missing or damaged ({error}): restore it with git checkout"
        ) from error
    end = 4 * (2 + len(shape))
    header = [int.from_bytes(content[at : at + 4], "big") for at in range(0, end, 4)]
    fits = len(content) - end == header[1] * math.prod(shape)
    if header[0] != magic or tuple(header[2:]) != shape or not fits:
        raise UserError(
            f"{archive} is damaged: its header and its size do not fit; restore it with git "
            "checkout"
        )
    return content[end:]


def put_in_place(finished: Path, database: Path) -> None:
    """Renames a finished database into place, unless somebody was faster."""
    try:
        finished.rename(database)
    except OSError as error:
        if not (database / "data.mdb").is_file():
            raise UserError(
                f"{database} is in the way and is no LMDB: remove it ({error.strerror})"
            ) from error


def main() -> int:
    try:
        create_mnist(EXAMPLE)
    except UserError as error:
        message, status = str(error), 2
    except OSError as error:
        message, status = f"{error.strerror}: {error.filename}", 2
    except KeyboardInterrupt:
        message, status = "interrupted; run it again to go on", 130
    else:
        return 0
    print(f"{Path(__file__).name}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
