"""``loggers: [tensorboard]``: an event file that TensorBoard follows.

It is written at once and without tensorboardX's thread, which would starve inside `caffe`: there
the main thread keeps Python's lock while Caffe computes.
"""

from __future__ import annotations

import time
from typing import Any, Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from caffe_pysgd.hosts.loggers.logger import Logger

FOLDER = "tensorboard"


class TensorBoard(Logger):
    """Writes into the folder ``tensorboard`` of the run directory; each session has a file."""

    def begin_run(self, iteration: int) -> None:
        folder = self.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        # TensorBoard forgets what an earlier session logged after this iteration.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(session_log=start, step=iteration))

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        summary = Summary(
            value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._write(Event(summary=summary, step=iteration))

    def end_run(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()
