"""A training that goes on until it is stopped; its log is read line by line."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from helpers.places import BIN


class Running:
    """A running command, ended at the latest when the block is left.

    Args:
        arguments: of ``caffe-pysgd``, or of another program.
        program: which.
    """

    def __init__(self, *arguments: str, program: Path = BIN / "caffe-pysgd") -> None:
        environment = {k: v for k, v in os.environ.items() if k != "GLOG_minloglevel"}
        self.process = subprocess.Popen(
            [str(program), *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            close_fds=False,
            text=True,
        )
        self.log = ""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def until(self, words: str, times: int = 1) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            times -= words in line
            if times == 0:
                return
        raise AssertionError(f"the log ended without '{words}': {self.log[-1000:]}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        self.log += self.process.communicate(timeout=60)[1]
        return self.process.returncode
