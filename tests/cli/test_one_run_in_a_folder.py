"""Two runs in one folder: the second is refused before it writes anything."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any, List

import pytest
from helpers.nets import SMALL, write_solver
from helpers.places import BIN
from helpers.recorded_runs import rows

RATES = (0.01, 0.02)


def write_yamls(folder: Path, iterations: int) -> None:
    write_solver(folder, SMALL, max_iter=iterations)
    for number, rate in enumerate(RATES):
        text = f"solver: solver.prototxt\nrun_dir: run\nupdate: {{base_lr: {rate}}}\n"
        text += "snapshots: {overwrite: true}\n"
        (folder / f"{number}.yaml").write_text(text)


def start(command: str, number: int) -> subprocess.Popen:
    program = [str(BIN / "caffe-pysgd"), command, f"{number}.yaml"]
    return subprocess.Popen(program, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("command", ["train", "solve"])
def test_the_second_is_refused_and_changes_nothing(workdir: Path, cli: Any, command: str) -> None:
    write_yamls(workdir, 1_000_000)
    first = start(command, 0)
    try:
        audit, deadline = workdir / "run/audit.sqlite", time.monotonic() + 60
        while not audit.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        before = {path: path.read_bytes() for path in workdir.glob("run/*.prototxt")}
        for other in ("train", "solve", "inject"):
            refused = cli(other, "1.yaml")
            assert refused.returncode == 2, refused.stderr
            assert len(refused.stderr.splitlines()) == 1
            assert "recording into it" in refused.stderr or "writing into it" in refused.stderr
        assert before == {path: path.read_bytes() for path in workdir.glob("run/*.prototxt")}
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize("command", ["train", "solve"])
def test_of_two_started_together_each_trains_with_what_it_says(workdir: Path, command: str) -> None:
    write_yamls(workdir, 300)
    for _ in range(3):
        both = [start(command, number) for number in range(2)]
        ends = [(process.wait(), process.communicate()[1]) for process in both]
        trained: List[int] = [number for number, (code, _) in enumerate(ends) if code == 0]
        assert trained, ends
        assert all(code == 2 for number, (code, _) in enumerate(ends) if number not in trained)
        # The last one's record is in place; the one before it, if any, was put aside.
        for file in (workdir / "run").glob("audit*.sqlite"):
            ((said,),) = rows(
                file,
                "SELECT json_extract(manifest, '$.hyperparameters.base_lr') FROM sessions",
            )
            used = rows(file, "SELECT DISTINCT round(rate, 6) FROM iterations")
            source = rows(file, "SELECT json_extract(manifest, '$.source') FROM sessions")
            assert used == [(said,)]
            assert RATES[int(source[0][0][0])] == said
            file.unlink()
