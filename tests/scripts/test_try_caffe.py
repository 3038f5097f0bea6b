"""scripts/try_caffe.py: the project on other Caffes than the default one."""

from __future__ import annotations

import subprocess
import sys
from typing import Dict

import pytest
from helpers.places import PROJECT

# What each of them has, and so where 0 values differ.
HOSTS = {
    "kendryte-caffe": ("hook", "solver"),
    "debian-rebuilt": ("in-net", "hook", "solver"),
    "no-python-layer": ("hook", "solver"),
}


def try_caffe(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "scripts" / "try_caffe.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_caffe_that_it_does_not_know_is_refused() -> None:
    run = try_caffe("tensorflow")
    assert run.returncode == 2
    assert "invalid choice: 'tensorflow' (choose from" in run.stderr


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("name", HOSTS)
def test_a_caffe_beside_the_default_one(name: str) -> None:
    run = try_caffe(name)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    _, _, seen = run.stdout.partition(f"{name}: what was seen\n")
    lines: Dict[str, str] = {}
    for line in seen.splitlines():
        subject, _, found = line.partition(" ")
        lines[subject.rstrip(":")] = found.strip()
    for host in HOSTS[name]:
        assert lines[host].startswith("verify: 0 of 862160 values differ")
    assert " passed" in lines["tests"]
    assert "failed" not in lines["tests"]
