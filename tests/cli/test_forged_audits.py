"""A forger's audit, its chain made anew: every command reads it, or refuses it in one line."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest
from helpers.audits import chain_anew
from helpers.nets import SMALL
from helpers.solved_runs import AUDIT, MY_RULES, train, write_run

from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.cli.main import main
from caffe_pysgd.stock import pycaffe

COMMANDS = {
    "check": "audit check forged.sqlite",
    "compare": "audit compare forged.sqlite sound.sqlite",
    "report": "report forged.sqlite sound.sqlite -o page.html",
    "watch": "watch forged.sqlite --once",
    "export": "export forged.sqlite --format csv -o csv",
    "explain": "explain forged.sqlite --param hidden/0 --index 1,2 --iteration 1",
    "replay": "audit replay forged.sqlite",
}
DIFFER = ("compare", "explain", "replay")  # 1 is their answer, too
KEYS = (
    "seal", "source", "configuration", "rule", "hyperparameters", "solver", "net", "train_state",
    "random_seed", "start", "command", "working_directory", "git", "host", "versions", "audit",
    "initial_weights", "statistics",
)  # fmt: skip
NONSENSE: Dict[str, Any] = {
    "number": 3, "huge": 10**30, "text": "x:y", "list": [[1, "x"]], "map": {"x": {}}, "null": None,
    "long": "{" * 100_000, "nested": json.loads("[" * 900 + "]" * 900),
}  # fmt: skip
WHOLE = {
    "number": "3", "text": '"x"', "list": "[[1]]", "null": "null", "empty": "{}", "no JSON": "{",
    "infinite": "1e999", "nested": "[" * 100_000, "huge": "9" * 100_000, "half": '"\\ud800"',
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two recorded runs, one of them with a rule of the user's own."""
    folder, before = tmp_path_factory.mktemp("recorded"), os.getcwd()
    os.chdir(folder)
    Path("my_rules.py").write_text(MY_RULES)
    sys.path.insert(0, str(folder))
    for name, update in (("plain", {}), ("sound", {"rule": "my_rules:Plain"})):
        write_run(folder, SMALL, update)
        train(3)
        AUDIT.rename(f"{name}.sqlite")
    sys.path.remove(str(folder))
    os.chdir(before)
    yield folder


@pytest.fixture(autouse=True)
def _there(recorded: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded run, and the module that nobody may import any more."""
    monkeypatch.setattr(pycaffe.compiled(), "init_log", lambda *_: None)  # once in a process
    for name in ("plain.sqlite", "sound.sqlite", "my_rules.py"):
        shutil.copy(recorded / name, name)
    sys.modules.pop("my_rules", None)


def manifest_of(audit: str) -> Dict[str, Any]:
    (text,) = sqlite3.connect(audit).execute("SELECT manifest FROM sessions").fetchone()
    manifest: Dict[str, Any] = json.loads(text)
    return manifest


def forge(audit: str, manifest: str) -> None:
    shutil.copy(audit, "forged.sqlite")
    connection = sqlite3.connect("forged.sqlite")
    connection.execute("UPDATE sessions SET manifest = ?", [manifest])
    chain_anew(connection)
    connection.commit()
    connection.close()
    assert check_ledger(Path("forged.sqlite")).intact


def ended(command: str, monkeypatch: Any, capfd: Any) -> Tuple[Any, str]:
    """Return a command's exit code and what it said on stderr."""
    monkeypatch.setattr(sys, "argv", ["caffe-pysgd", *COMMANDS[command].split()])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capfd.readouterr().err


def refused_or_read(command: str, monkeypatch: Any, capfd: Any) -> None:
    code, said = ended(command, monkeypatch, capfd)
    assert code in ((0, 1, 2) if command in DIFFER else (0, 2)), said
    if code == 2:
        (line,) = said.splitlines()
        assert line.startswith("caffe-pysgd: ") and len(line) < 1000
    assert "Traceback" not in said
    assert not Path("imported").exists()


SLOWLY = [pytest.param(kind, marks=[pytest.mark.slow]) for kind in NONSENSE if kind != "map"]


@pytest.mark.parametrize("kind", ["map", *SLOWLY])
@pytest.mark.parametrize("command", COMMANDS)
def test_nonsense_in_a_manifest(command: str, kind: str, monkeypatch: Any, capfd: Any) -> None:
    # Of the run with a rule of the user's own, nothing is trained again.
    for audit in ["sound.sqlite", *(["plain.sqlite"] if command in DIFFER else [])]:
        for key in KEYS:
            forge(audit, json.dumps({**manifest_of(audit), key: NONSENSE[kind]}))
            refused_or_read(command, monkeypatch, capfd)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("command", COMMANDS)
def test_nonsense_in_place_of_a_manifest(
    command: str, kind: str, monkeypatch: Any, capfd: Any
) -> None:
    forge("sound.sqlite", WHOLE[kind])
    refused_or_read(command, monkeypatch, capfd)
