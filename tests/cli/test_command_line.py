"""The command line as a whole: help, mistakes, and installations that are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from helpers.audits import write_audit
from helpers.failures import failure
from helpers.nets import write_solver
from helpers.places import BIN

import caffe_pysgd
from caffe_pysgd.cli.main import commands as program
from caffe_pysgd.hosts.solver import Action
from caffe_pysgd.proof.verify import HOSTS
from caffe_pysgd.views.export import FORMATS

COMMANDS = ["doctor", "inject", "train", "verify"]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(cli: Any, arguments: list[str]) -> None:
    process = cli(*arguments)
    assert (process.returncode, process.stderr) == (0, "")
    assert "Usage: caffe-pysgd [OPTIONS] COMMAND" in process.stdout
    for command in COMMANDS:
        assert f"\n  {command} " in process.stdout


def groups() -> list[click.Group]:
    """The groups of commands: all of it, and audit."""
    audit = program.get_command(click.Context(program), "audit")
    assert isinstance(audit, click.Group)
    return [program, audit]


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.name)
def test_the_list_of_commands_is_not_cut_at_80_columns(cli: Any, group: click.Group) -> None:
    arguments = [] if group is program else [group.name]
    listed = cli(*arguments, "--help", COLUMNS="80").stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == group.list_commands(click.Context(group))
    assert [line for line in listed if not line.endswith(".") or "..." in line] == []


@pytest.mark.parametrize("arguments", [["--help"], ["solve", "--help"], ["audit", "--help"]])
def test_help_waits_for_nothing_that_a_command_works_with(workdir: Path, arguments: list) -> None:
    assert not {"numpy", "pydantic", "rich", "caffe", "google"} & imported(arguments)


def imported(arguments: list, **environment: str) -> set[str]:
    """The top-level modules that a command line takes along."""
    process = subprocess.run(
        [sys.executable, "-X", "importtime", str(BIN / "caffe-pysgd"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 50
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


def completed(*words: str) -> list[str]:
    """What the shell offers for the last word."""
    process = subprocess.run(
        [str(BIN / "caffe-pysgd")],
        env={
            **os.environ,
            "_CAFFE_PYSGD_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["caffe-pysgd", *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
    )
    assert process.stderr == ""
    return [line.partition(",")[2] for line in process.stdout.splitlines() if line]


def test_the_shell_completes_commands_options_and_choices(workdir: Path) -> None:
    assert completed("ex") == ["explain", "export"]
    assert completed("audit", "re") == ["replay"]
    assert completed("solve", "--sigint") == ["--sigint_effect"]
    assert completed("verify", "--host", "h") == ["hook"]


def test_the_shell_completes_parameters_and_iterations_of_a_run(workdir: Path) -> None:
    write_audit(workdir / "audit.sqlite", 3)
    assert completed("explain", ".", "--param", "conv") == ["conv1/0", "conv1/1"]
    assert completed("explain", "audit.sqlite", "--iteration", "1") == ["1"]
    assert completed("explain", "--index=0", ".", "--param=ip1/0", "--iteration", "2") == ["2"]
    assert completed("audit", "replay", ".", "--from", "0") == ["0"]
    assert completed("explain", "elsewhere", "--param", "conv") == []


def test_completing_waits_for_nothing_that_a_command_works_with(workdir: Path) -> None:
    words = {"COMP_WORDS": "caffe-pysgd explain . --param c", "COMP_CWORD": "4"}
    found = imported([], _CAFFE_PYSGD_COMPLETE="bash_complete", **words)
    assert "sqlite3" in found
    assert not {"numpy", "pydantic", "rich", "caffe"} & found


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("verify", "host", HOSTS),
        ("export", "format", FORMATS),
        ("solve", "sigint_effect", [action.value for action in Action]),
    ],
)
def test_choices_are_those_that_there_are(command: str, option: str, values: Any) -> None:
    found = program.get_command(click.Context(program), command)
    (kind,) = (one.type for one in found.params if one.name == option)
    assert list(kind.choices) == list(values)


def test_verbosity_goes_before_or_behind_the_command(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=2)
    told = {arguments: cli(*arguments) for arguments in [
        ("solve", "solver.prototxt"), ("solve", "solver.prototxt", "--quiet"),
        ("-q", "solve", "solver.prototxt"), ("solve", "-v", "solver.prototxt"),
    ]}  # fmt: skip
    assert {process.returncode for process in told.values()} == {0}
    logs = ["Optimization Done" in process.stderr for process in told.values()]
    assert logs == [True, False, False, True]


def test_quiet_shows_no_progress_but_the_result(cli: Any, workdir: Path) -> None:
    write_solver(workdir, max_iter=2)
    process = cli("verify", "solver.prototxt", "--quiet")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines()[-1].startswith("verify: 0 of ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Any, command: str) -> None:
    process = cli(command, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert f"Usage: caffe-pysgd {command}" in process.stdout


def test_the_version_is_the_packages(cli: Any) -> None:
    assert cli("--version").stdout == f"caffe-pysgd, version {caffe_pysgd.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'; did you mean 'train'?"),
        (["audit", "chek"], "No such command 'chek'; did you mean 'check'?"),
        (["frobnicate"], "No such command 'frobnicate'; expected one of doctor, inject, train"),
        (["--frobnicate"], "No such option: --frobnicate"),
        (["train"], "need a solver definition to train: give X"),
        (["train", "x.prototxt", "anything"], "Got unexpected extra argument (anything)"),
        (["train", "x.prototxt", "--solver=y"], "give X or --solver X, not both"),
        (["train", "x.prototxt", "--weights=,"],
         "--weights: got ','; expected .caffemodel files, separated by commas"),
        (["solve", "x.prototxt", "--weights="], "--weights: got ''; expected .caffemodel files"),
        (["train", "x.prototxt", "--snapshot="], "--snapshot: got ''; expected a .solverstate"),
        (["train", "x.prototxt", "--iterations=" + "9" * 21], "Invalid value for '--iterations': "),
        (["explain", "x", "--param=p", "--index=0", "--iteration=" + "9" * 21],
         "Invalid value for '--iteration': "),
        (["audit", "replay", "x", "--from=" + "9" * 21], "Invalid value for '--from': "),
        (["inject"], "Missing argument 'X'."),
        (["verify"], "Missing argument 'X'."),
        (["train", "x.prototxt", "--iteration=3"],
         "No such option: --iteration Did you mean --iterations?; a flag of caffe's own "),
        (["train", "x.prototxt", "--iterations=many"],
         "Invalid value for '--iterations': got many; expected a whole number, 1 or more"),
        (["train", "x.prototxt", "--iterations=0"],
         "Invalid value for '--iterations': got 0; expected a whole number, 1 or more"),
        (["train", "x.prototxt", "--level=high"],
         "Invalid value for '--level': got high; expected a whole number"),
        (["watch", "x", "--interval=0"],
         "Invalid value for '--interval': got 0; expected a number, 0.1 to 3600"),
        (["verify", "x.prototxt", "--host=gpu"], "Invalid value for '--host': 'gpu' is not "),
        (["inject", "x.prototxt", "--run-dir=d"],
         "x.prototxt: there is no such file; give a solver.prototxt or a YAML"),
        (["verify", "x" * 300],
         f"{'x' * 300}: there is no such file; give a solver.prototxt or a YAML"),
        (["inject", ".", "--run-dir=d"], ".: cannot be read: Is a directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(cli: Any, arguments: list[str], said: str) -> None:
    assert failure(cli(*arguments)).startswith(said)


def test_a_message_of_several_lines_is_told_in_one(cli: Any) -> None:
    assert failure(cli("inject", "a\nb", "--run-dir=d")).startswith("a b: there is no such file")


def test_python_m_is_the_same_program(workdir: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "caffe_pysgd", "--version"], capture_output=True, text=True
    )
    assert process.stdout == f"caffe-pysgd, version {caffe_pysgd.__version__}\n"


def test_a_reader_that_goes_away_is_no_error(workdir: Path) -> None:
    write_solver(workdir)
    line = f"{BIN}/caffe-pysgd inject solver.prototxt --run-dir d | true; echo ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert process.stderr == ""
    assert process.stdout in ("0\n", "1\n")  # 0 if the line was written before the reader left


BROKEN = {
    "a protobuf that refuses": (
        "google/protobuf/__init__.py",
        "raise TypeError('Descriptors cannot be created directly.\\nDowngrade.')",
        "protobuf",
    ),
    "a NumPy of another ABI": ("numpy.py", "raise RuntimeError('compiled against')", "numpy"),
    "PyPI's empty caffe": ("caffe/__init__.py", "", "caffe"),
    "a pycaffe that does not load": (
        "caffe/_caffe.py", "raise SystemError('initialization of _caffe raised')", "caffe",
    ),
}  # fmt: skip


@pytest.fixture(params=BROKEN)
def broken(request: Any, workdir: Path) -> tuple[str, str]:
    """A PYTHONPATH with something broken on it; return it and the subject that doctor blames."""
    file, content, subject = BROKEN[request.param]
    path = workdir / "path" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    if subject in ("protobuf", "caffe"):
        for folder in (path.parent, path.parent.parent):
            if folder.name != "path" and not (folder / "__init__.py").exists():
                (folder / "__init__.py").touch()
    return str(workdir / "path"), subject


def test_doctor_names_what_is_broken_and_the_mend(cli: Any, broken: tuple[str, str]) -> None:
    path, subject = broken
    process = cli("doctor", PYTHONPATH=path)
    assert failure(process).startswith(f"{subject}: ")
    assert f"\nFAIL {subject}" in process.stdout
    assert "training can run" not in process.stdout
    assert "docs/install.md" in process.stderr or "uninstall it" in process.stderr


def test_a_command_that_cannot_run_there_says_so_in_one_line(
    cli: Any, workdir: Path, broken: tuple[str, str]
) -> None:
    write_solver(workdir)
    said = failure(cli("inject", "solver.prototxt", "--run-dir=d", PYTHONPATH=broken[0]))
    assert any(fix in said for fix in ("'caffe-pysgd doctor' looks", "uninstall", "constraints"))
    assert not (workdir / "d").exists()


def test_an_error_of_ours_is_one_line_and_a_code_that_means_nothing_else(cli: Any) -> None:
    program = "import numpy; numpy.array = None\n"
    Path("path").mkdir()
    Path("path/sitecustomize.py").write_text(program)
    process = cli("audit", "check", "x", PYTHONPATH="path")
    assert process.returncode in (2, 70)
    assert len(process.stderr.splitlines()) == 1
