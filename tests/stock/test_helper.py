"""The process in which Caffe may die."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from caffe_pysgd.stock.helper import run_with_caffe


class Interruption(BaseException):
    """Ctrl-C, or a test that takes too long."""


def test_an_interrupted_task_leaves_no_answer_behind_for_the_next() -> None:
    def interrupt(*_: Any) -> None:
        raise Interruption

    assert run_with_caffe(os.system, "true").status == 0
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Interruption):
            run_with_caffe(os.system, "sleep 3; echo the first >&2")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert run_with_caffe(os.system, "echo the second >&2").log.split() == ["the", "second"]
