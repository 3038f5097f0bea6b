"""``watch``: a run seen in a terminal while another process trains."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np
import pytest
from helpers.audits import write_audit, write_sessions
from helpers.failures import failure
from helpers.nets import write_solver
from helpers.places import BIN

from caffe_pysgd.audit.store import Store
from caffe_pysgd.views.watch.frame import bar, curve, sparkline
from caffe_pysgd.views.watch.reading import LOSS_POINTS, Pace, read

TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}


class Watching:
    """``caffe-pysgd watch`` under a pseudo-terminal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        main, its = pty.openpty()
        command = [str(BIN / "caffe-pysgd"), "watch", *arguments]
        self.process = subprocess.Popen(
            command, stdin=its, stdout=its, stderr=its,
            env={**os.environ, **TERMINAL, **environment},
            start_new_session=True, preexec_fn=lambda: os.close(main),
        )  # fmt: skip
        os.close(its)
        self._main = main
        self.seen = ""

    def until(self, text: str, seconds: float = 60) -> None:
        """Read the screen until a text shows."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen[-3000:]
            assert self._more(), self.seen[-3000:]

    def press(self, key: str) -> None:
        os.write(self._main, key.encode())

    def finish(self) -> int:
        """Read to the end; return the exit code."""
        while self._more():
            pass
        return self.process.wait(60)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        os.close(self._main)

    def _more(self) -> bool:
        if not select.select([self._main], [], [], 60)[0]:
            return False
        try:
            data = os.read(self._main, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        return bool(data)


@pytest.fixture
def watching() -> Iterator[Callable[..., Watching]]:
    started: List[Watching] = []

    def start(*arguments: str, **environment: str) -> Watching:
        started.append(Watching(*arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_training_is_watched_from_before_its_begin_to_its_end(
    workdir: Path, watching: Callable[..., Watching]
) -> None:
    write_solver(workdir, max_iter=400, snapshot_prefix="snap", test_interval=100)
    Path("run.yaml").write_text("solver: solver.prototxt\nrun_dir: run\naudit: {every: 1}\n")
    screen = watching("run", "--interval", "0.1")
    screen.until("waiting for an audit in run")
    with subprocess.Popen(
        [str(BIN / "caffe-pysgd"), "train", "run.yaml"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as training:  # fmt: skip
        screen.until("of 400 updates")
        screen.until("the session has ended")
        assert training.wait(60) == 0
    with Store(Path("run")) as store:
        screen.until(f"{store.updates(0, 'ratio')[1][-1]:.3g}")
    screen.press("q")
    assert screen.finish() == 0
    assert "Traceback" not in screen.seen


def test_what_is_no_audit_ends_it_with_one_line(
    workdir: Path, watching: Callable[..., Watching]
) -> None:
    Path("text.sqlite").write_text("not a database, but long enough to look at" * 30)
    screen = watching("text.sqlite")
    assert screen.finish() == 2
    assert "cannot be read as an audit" in screen.seen and "Traceback" not in screen.seen


def test_without_textual_the_extra_is_named(
    workdir: Path, watching: Callable[..., Watching]
) -> None:
    write_audit(Path("audit.sqlite"), 5)
    Path("textual.py").write_text("raise ImportError('not here')\n")
    screen = watching("audit.sqlite", PYTHONPATH=str(workdir))
    assert screen.finish() == 2
    assert "pip install 'caffe-pysgd[watch]'" in " ".join(screen.seen.split())


def test_one_frame_says_what_the_audit_says(cli: Callable, workdir: Path) -> None:
    manifest = {"host": "in-net", "audit": {"max_iter": 500}}
    sessions: Any = [
        dict(iterations=70, ended=None),
        dict(start=60, iterations=60, nonfinite_at=80, manifest=manifest),
    ]
    write_sessions(Path("run", "audit.sqlite"), sessions)
    shown = cli("watch", "--once", "run", **TERMINAL)
    assert (shown.returncode, shown.stderr) == (0, "")
    text = shown.stdout
    assert text == cli("watch", "run", **TERMINAL).stdout  # a pipe is no terminal
    with Store(Path("run")) as store:
        loss, averaged = (store.series(name)[1][-1] for name in ("loss", "smoothed_loss"))
        assert f"{loss:.6g}   averaged {averaged:.6g}" in text
        for parameter in store.parameters():
            (row,) = (line.split() for line in text.splitlines() if line.startswith(parameter.name))
            number = parameter.parameter
            norms = [
                store.figures(number, quantity, "l2")[1][-1]
                for quantity in ("gradient", "update", "data")
            ]
            ratio = store.updates(number, "ratio")[1][-1]
            assert [row[1], *row[3:]] == [f"{value:.4g}" for value in (ratio, *norms)]
    assert "120 of 500 updates" in text and "session 2, in-net" in text
    assert "! conv1/0: 2 values of the gradient are not finite" in text


def test_what_is_not_there_or_no_audit_is_refused(cli: Callable, workdir: Path) -> None:
    assert "nowhere: there is no such file" in failure(cli("watch", "--once", "nowhere"))
    Path("text.sqlite").write_text("not a database, but long enough to look at" * 30)
    assert "cannot be read as an audit" in failure(cli("watch", "--once", "text.sqlite"))


def test_an_audit_without_an_iteration_is_no_error(cli: Callable, workdir: Path) -> None:
    write_audit(Path("audit.sqlite"), 0)
    shown = cli("watch", "--once", "audit.sqlite")
    assert shown.returncode == 0 and "nothing recorded yet" in shown.stdout


def test_the_pace_is_that_of_the_clock() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    for done in (0, 10, 20, 30):
        pace.see(1, done)
        now[0] += 2
    assert pace.speed() == 5
    assert pace.still_seconds() == 2
    pace.see(2, 20)  # another session: what was before says nothing of it
    assert pace.speed() is None


def test_small_drawings(workdir: Path) -> None:
    with Store(write_audit(workdir / "audit.sqlite", 100)) as store:
        assert 0 < len(read(store).losses) <= LOSS_POINTS
        drawn = sparkline(read(store).losses)
    assert drawn[0] == "█" and "▁" in drawn
    assert [bar(ratio) for ratio in (None, 0.0, 1e-6, 1e-3, 1.0, 5.0)] == [
        "", "", "", "█" * 6, "█" * 12, "█" * 12,
    ]  # fmt: skip
    drawn_curve = curve(np.array([1.0, 2.0, 3.0, np.nan]), 14, 2)
    assert drawn_curve == ["       3   ▁█ ", "       1  ▁██ "]
