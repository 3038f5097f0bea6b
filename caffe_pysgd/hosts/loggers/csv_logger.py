"""``loggers: [csv]``: a line for each number, in a file that grows."""

from __future__ import annotations

import csv
from typing import Mapping

from caffe_pysgd.hosts.loggers.logger import Logger

FILE = "metrics.csv"


class CSV(Logger):
    """Appends ``iteration,name,value`` lines; after a resume, behind those that are there."""

    def begin_run(self, iteration: int) -> None:
        path = self.folder / FILE
        goes_on = iteration > 0 and path.exists()
        self._file = open(path, "a" if goes_on else "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not goes_on:
            self._writer.writerow(["iteration", "name", "value"])

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        self._writer.writerows((iteration, name, value) for name, value in values.items())
        self._file.flush()

    def end_run(self) -> None:
        self._file.close()
