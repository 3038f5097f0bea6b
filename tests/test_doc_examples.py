"""The examples on the pages: each Python block and each `$ ` line runs, as it stands there.

A page's examples run in order, in a folder laid out as the project's own, and its Python blocks
share one namespace. Below a `$ ` line, or in a text block right below a Python block, stands the
output. It is compared, but numbers with a fraction are not: they depend on the machine, and here
LeNet trains with smaller batches. A `…` stands for any text.

A comment on the line above a block says what is special about it:

    <!-- file: lenet.yaml -->               is written to this file instead of being run
    <!-- exits with 1 -->                   the exit code, if it is not 0 (or 2, after an error)
    <!-- numbers vary -->                   of whole numbers, too, only zeros are compared
    <!-- not run: it needs the network -->  why it cannot run here
    <!-- needs pandas -->                   runs where this module is installed

A block within a comment runs without being shown.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple

import pytest
import yaml
from helpers.places import BIN, PROJECT

from caffe_pysgd.experiments.space import parse_space
from caffe_pysgd.experiments.sweep_file import SweepOptions
from caffe_pysgd.run.configuration import Configuration

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]

FENCE = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*(?:\n> .*)*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
NOTES = re.compile(r"(file|not run): .+|exits with \d(, numbers vary)?|numbers vary|needs \w+")


class Block(NamedTuple):
    """A fenced block of a page, with the note in the comment above it."""

    place: str
    note: str
    language: str
    text: str
    output: str  # that of a Python block, in the text block below it


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    matches = list(FENCE.finditer(text))
    for match, after in zip(matches, [*matches[1:], None]):
        line = text.count("\n", 0, match.start(3))
        adjacent = after and after[2] == "text" and not text[match.end() : after.start()].strip()
        output = after[3] if after and adjacent else ""
        yield Block(f"{page.name}:{line}", match[1] or "", match[2], match[3], output)


def stable(text: str, numbers_vary: bool) -> str:
    """Take out of an output what depends on machine, day and batch size."""
    text = text.replace("...", "…")
    text = re.sub(r"\b[0-9a-f]{4,}…", "…", text)  # hashes
    text = re.sub(r".*━.*\n", "", text)  # progress
    text = re.sub(r"[▀-▟]+", "", text)  # bars
    text = re.sub(r"\((-\d[^\s()]*)\)", r"\1", text)
    text = re.sub(r"\(\S+ iter/s, \S+s/", "(0.0 iter/s, 0.0s/", text)  # the first is no number
    text = re.sub(r"-?0x[01](\.[0-9a-f]+)?p[-+]\d+", "0.0", text)
    text = re.sub(r"-?\d+(\.\d+)+(e[-+]?\d+)?|-?\d+e[-+]?\d+", "0.0", text)
    if numbers_vary:
        text = re.sub(r"(?<![\w.])[1-9][\d,]*", "1", text)
    return text.replace("…", "...")


def assert_output(block: Block, example: str, expected: str, found: str) -> None:
    vary = "numbers vary" in block.note
    checker, options = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not checker.check_output(stable(expected, vary), stable(found, vary), options):
        pytest.fail(
            f"{block.place}: {example}\nshown:\n{expected}\nprinted:\n{found[-2000:]}", False
        )


def run_console(block: Block) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GLOG_minloglevel"}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    for command, output in COMMAND.findall(block.text):
        process = subprocess.run(
            ["bash", "-c", command.replace("\n> ", "\n")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        said = re.match(r"exits with (\d)", block.note)
        refused = output.rpartition("\n")[0].rpartition("\n")[2].startswith("caffe-pysgd: ")
        expected = int(said[1]) if said else 2 if refused else 0
        assert process.returncode == expected, f"{block.place}: {command}\n{process.stdout[-2000:]}"
        if output.strip():
            assert_output(block, command, output, process.stdout)


def run_python(block: Block, namespace: Dict[str, Any]) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.place, "exec"), namespace)
    if block.output:
        assert_output(block, block.text, block.output, printed.getvalue())


def runs(block: Block) -> bool:
    return block.language == "python" or bool(COMMAND.search(block.text))


@pytest.fixture
def project(mnist: Path, workdir: Path) -> Path:
    """A folder of the page's own with the examples in it, where training takes a second."""
    shutil.copytree(mnist / "examples", workdir / "examples")
    shutil.copytree(PROJECT / "examples" / "manual_sgd", workdir / "examples" / "manual_sgd")
    net = workdir / "examples" / "mnist" / "lenet_train_test.prototxt"
    text = net.read_text().replace("batch_size: 64", "batch_size: 8")  # 4 diverges
    net.write_text(text.replace("batch_size: 100", "batch_size: 10"))
    return workdir


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(runs, blocks(page)))], ids=lambda page: page.name
)
def test_a_pages_examples_run(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: Dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        kind, _, what = block.note.partition(": ")
        if kind == "file":
            Path(what).write_text(block.text)
        elif kind == "not run" or (
            kind.startswith("needs ") and not importlib.util.find_spec(kind.split()[1])
        ):
            continue
        elif block.language == "python":
            run_python(block, namespace)
        else:
            run_console(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_blocks_are_well_formed(page: Path) -> None:
    """The notes are such as there are, a block with commands is a console, YAML is a run's."""
    for block in blocks(page):
        assert not block.note or NOTES.fullmatch(block.note), block.place
        assert block.language != "text" or not COMMAND.search(block.text), block.place
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            if "space" in content:
                parse_space(SweepOptions.model_validate(content).space)
            else:
                Configuration.model_validate({"solver": "solver.prototxt", **content})
