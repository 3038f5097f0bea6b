"""Storages other than the default: a journal, and PostgreSQL, with machines that are lost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from helpers.places import BIN
from helpers.sweeps import GRID, write_sweep


def start(source: Path, storage: str = "", prefix: List[str] = []) -> subprocess.Popen:  # noqa: B006
    with open(source.parent / "said.txt", "a") as said:
        return subprocess.Popen(
            [*prefix, str(BIN / "caffe-pysgd"), "sweep", str(source)],
            env={**os.environ, "STORAGE": storage},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def said(workdir: Path, what: str) -> List[str]:
    return [line for line in (workdir / "said.txt").read_text().splitlines() if what in line]


def test_a_journal_is_shared_by_processes(workdir: Path) -> None:
    source = write_sweep(workdir, GRID + "storage: journal\n")
    sweeps = [start(source) for _ in range(2)]
    assert [sweep.wait(timeout=200) for sweep in sweeps] == [0, 0], said(workdir, "")
    assert (workdir / "out/study.journal").exists()
    finished = said(workdir, ": finished: ")
    assert len(finished) == len(set(finished)) == 4


def programs() -> Dict[str, str]:
    """Return PostgreSQL's programs, and skip where they are not there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    place = f"{found[-1]}{os.pathsep}" if found else ""
    paths = {
        name: shutil.which(name, path=place + os.environ["PATH"]) for name in ("initdb", "pg_ctl")
    }
    if not all(paths.values()):
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL server of the test's own; its URL."""
    pytest.importorskip("psycopg2", reason="no driver: pip install psycopg2-binary")
    program = programs()
    as_user: List[str] = []
    if os.getuid() == 0:  # which it refuses to run as
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="caffe-pysgd-postgres-")
    if as_user:
        shutil.chown(folder, "postgres")
    data, options = f"{folder}/data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"

    def run(*arguments: str) -> None:
        subprocess.run([*as_user, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL)

    try:
        run(program["initdb"], "-D", data, "-U", "sweeper", "--auth=trust")
        run(program["pg_ctl"], "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
        finally:
            run(program["pg_ctl"], "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_machines_share_postgres_and_one_is_lost(workdir: Path, postgres: str) -> None:
    """One of two workers has another host's name and is killed: nobody can look at its process."""
    other = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$0" "$@"']
    if subprocess.run([*other, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("unshare is not allowed here")
    source = write_sweep(workdir, GRID + "storage: $STORAGE\n", max_iter=3000, snapshot=500)
    lost = start(source, postgres, other)
    while not list(workdir.glob("out/runs/*/snapshots/*.solverstate")):
        assert lost.poll() is None, said(workdir, "")
        time.sleep(0.05)
    lost.kill()
    lost.wait()
    sweeps = [start(source, postgres) for _ in range(2)]
    assert [sweep.wait(timeout=400) for sweep in sweeps] == [0, 0], said(workdir, "")
    finished = said(workdir, ": finished: ")
    assert len(finished) == len(set(finished)) == 4, said(workdir, "")
    logs = [path.read_text(errors="replace") for path in workdir.glob("out/runs/*/caffe.log")]
    assert sum("caffe-pysgd: resuming from" in log for log in logs) == 1


def test_a_storage_that_is_not_there_is_one_line(workdir: Path) -> None:
    source = write_sweep(workdir, GRID + "storage: sqlite:////no/such/folder/study.sqlite\n")
    assert start(source).wait(timeout=60) == 2
    (line,) = said(workdir, "")
    assert "storage: sqlite:////no/such/folder/study.sqlite: " in line
