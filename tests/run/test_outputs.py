"""What a run writes: inside its folder, and over nothing that is somebody else's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.audits import write_audit
from helpers.failures import failure
from helpers.nets import SMALL, write_solver

import caffe_pysgd
from caffe_pysgd.errors import SettingError


def write_yaml(folder: Path, audit: str) -> Path:
    write_solver(folder, SMALL, max_iter=1)
    path = folder / "run.yaml"
    path.write_text(f"solver: solver.prototxt\nrun_dir: run\naudit: {audit}\n")
    return path


@pytest.mark.parametrize("file", ["../up.sqlite", "/tmp/elsewhere.sqlite", "a/../../b.sqlite"])
def test_an_audit_outside_of_the_run_directory_is_refused(workdir: Path, file: str) -> None:
    source = write_yaml(workdir, f"{{file: {file}}}")
    said = f"audit.file: got '{file}'; expected a path inside the run directory"
    with pytest.raises(SettingError, match=re.escape(said)):
        caffe_pysgd.get_solver(source)
    assert not (workdir / "run").exists()


@pytest.mark.parametrize("file", ["net.prototxt", "manifest.json", "./solver.prototxt"])
def test_an_audit_in_the_place_of_another_output_is_refused(workdir: Path, file: str) -> None:
    with pytest.raises(SettingError, match=r"audit.file: got .* expected another name"):
        caffe_pysgd.get_solver(write_yaml(workdir, f"{{file: {file}}}"))


def test_an_audit_may_lie_deeper(workdir: Path, cli: Any) -> None:
    trained = cli("train", write_yaml(workdir, "{file: records/first.sqlite}"))
    assert trained.returncode == 0, trained.stderr
    assert (workdir / "run/records/first.sqlite").exists()
    assert (workdir / "run/manifest.json").exists()


@pytest.mark.parametrize("name", ["manifest.json", "net.prototxt", "solver.prototxt"])
@pytest.mark.parametrize("command", ["train", "solve", "inject"])
def test_a_file_of_the_users_stays(workdir: Path, cli: Any, command: str, name: str) -> None:
    source = write_yaml(workdir, "true")
    (workdir / "run").mkdir()
    (workdir / "run" / name).write_text("{}")
    said = failure(cli(command, source))
    assert said.startswith(f"{workdir}/run/{name}: would be replaced, and caffe-pysgd did not")
    assert (workdir / "run" / name).read_text() == "{}"


def test_a_report_of_the_users_stays_and_ours_is_renewed(workdir: Path, cli: Any) -> None:
    write_audit(workdir / "run/audit.sqlite", 3)
    (workdir / "run/report.html").write_text("<p>mine</p>")
    assert "run/report.html: would be replaced" in failure(cli("report", "run"))
    assert (workdir / "run/report.html").read_text() == "<p>mine</p>"
    (workdir / "run/report.html").unlink()
    for _ in range(2):
        assert cli("report", "run").returncode == 0
