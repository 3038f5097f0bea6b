#!/usr/bin/env python3
"""Makes the LMDBs of 10,000 MNIST digits that LeNet's Data layers read, as create_mnist.sh does.

Run it with the Python of `.venv`, which has Caffe's convert_mnist_data beside it:

    .venv/bin/python examples/mnist/create_mnist.py
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent
CONVERTER = "convert_mnist_data"
DATABASES = {"mnist_train_lmdb": "train", "mnist_test_lmdb": "t10k"}


class DataError(Exception):
    """What is wrong, where, and the fix, in one line for the user."""


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
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mnist-", dir=database.parent) as temporary:
        images = gunzip(data / f"{digits}-images-idx3-ubyte.gz", Path(temporary))
        labels = gunzip(data / f"{digits}-labels-idx1-ubyte.gz", Path(temporary))
        check_digits(data, images, labels)
        unfinished = Path(temporary) / database.name
        conversion = subprocess.run(
            [find_converter(), images, labels, unfinished, "--backend=lmdb"],
            # Otherwise glog leaves a log file in /tmp.
            env=dict(os.environ, GLOG_logtostderr="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if conversion.returncode != 0:
            reason = (conversion.stdout.strip().splitlines() or ["no message"])[0]
            raise DataError(
                f"{CONVERTER} could not make {database}: {reason} "
                f"(exit code {conversion.returncode})"
            )
        put_in_place(unfinished, database)


def gunzip(archive: Path, directory: Path) -> Path:
    """Unpacks a file into a directory and returns its path."""
    unpacked = directory / archive.stem
    try:
        with gzip.open(archive) as source, unpacked.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (gzip.BadGzipFile, zlib.error, EOFError, FileNotFoundError) as error:
        raise DataError(
            f"{archive} is missing or damaged ({error}): restore it with git checkout"
        ) from error
    return unpacked


def check_digits(data: Path, images: Path, labels: Path) -> None:
    """Checks that the files say what they are and hold what they say: the converter does not."""
    counts = []
    for path, magic, axes in ((images, 0x803, [28, 28]), (labels, 0x801, [])):
        content = path.read_bytes()
        words = range(0, 4 * len(axes) + 8, 4)
        header = [int.from_bytes(content[at : at + 4], "big") for at in words]
        size = len(content) - 4 * len(header)
        if header[0] != magic or header[2:] != axes or size != header[1] * math.prod(axes):
            raise DataError(
                f"{data / path.name}.gz is damaged: its header and its size do not fit; restore it "
                "with git checkout"
            )
        counts.append(header[1])
    if counts[0] != counts[1] or not counts[0]:
        raise DataError(
            f"{data / images.name}.gz has {counts[0]} images and its labels are {counts[1]}; "
            "restore both with git checkout"
        )


def find_converter() -> str:
    """Caffe's converter, beside the running Python or on PATH."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    converter = shutil.which(CONVERTER, path=os.pathsep.join(places))
    if converter is None:
        raise DataError(
            f"{CONVERTER} is neither beside {sys.executable} nor on PATH: run `make setup` and use "
            ".venv/bin/python, or put the directory of Caffe's tools on PATH"
        )
    return converter


def put_in_place(finished: Path, database: Path) -> None:
    """Renames a finished database into place, unless somebody was faster."""
    try:
        finished.rename(database)
    except OSError as error:
        if not (database / "data.mdb").is_file():
            raise DataError(
                f"{database} is in the way and is no LMDB: remove it ({error.strerror})"
            ) from error


def main() -> int:
    try:
        create_mnist(EXAMPLE)
    except DataError as error:
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
