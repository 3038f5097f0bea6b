"""What a recorded run, and a run that is about to be trained, may do: docs/trust.md's promises."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import h5py
import pytest
from helpers.failures import failure
from helpers.nets import SMALL, write_solver
from helpers.solved_runs import AUDIT, MY_RULES, train, write_run

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.seal import made_here
from caffe_pysgd.errors import UserError
from caffe_pysgd.proof.explain.lookup import find_element
from caffe_pysgd.proof.replay import replay
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.user_code import NO_USER_CODE

POLICY = """
def steady(h, iteration):
    return 0.01
"""
RULE = MY_RULES + POLICY
LAYER = """
from pathlib import Path
import caffe
class Nothing(caffe.Layer):
    def setup(self, bottom, top):
        Path("imported").write_text("")
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        top[0].data[...] = 0
    def backward(self, top, propagate_down, bottom):
        pass
"""
WITH_LAYER = SMALL + (
    'layer { name: "mine" type: "Python" bottom: "out" top: "nothing" '
    'python_param { module: "my_layers" layer: "Nothing" } }'
)
# Such a layer can be passed once: it writes each time what its file can hold once.
WRITES = SMALL + (
    'layer { name: "results" type: "HDF5Output" bottom: "out" bottom: "target" '
    'include { phase: TRAIN } hdf5_output_param { file_name: "out.h5" } }'
)


@pytest.fixture(autouse=True)
def _modules_of_ones_own(workdir: Path) -> None:
    """Modules in the working directory."""
    Path("my_rules.py").write_text(RULE)
    Path("my_layers.py").write_text(LAYER)


def record(net: str = SMALL, iterations: int = 3, **update: Any) -> None:
    write_run(Path.cwd(), net, update)
    train(iterations)
    forget_imports()


def forget_imports() -> None:
    sys.modules.pop("my_rules", None)
    Path("imported").unlink(missing_ok=True)


def change_manifest(**changes: Any) -> None:
    """Change what a manifest says, or take something out of it, as another's would be."""
    connection = sqlite3.connect(AUDIT)
    (text,) = connection.execute("SELECT manifest FROM sessions").fetchone()
    manifest: Dict[str, Any] = {**json.loads(text), **changes}
    kept = {key: value for key, value in manifest.items() if value is not None}
    connection.execute("UPDATE sessions SET manifest = ?", (json.dumps(kept),))
    connection.commit()
    connection.close()


def confirmed(allow: bool = False) -> int:
    with open_audit(AUDIT) as store:
        done = replay(store, 0, 2, lambda *_: None, allow)
    assert done.difference is None
    return done.iterations


def explained(allow: bool = False) -> str:
    with open_audit(AUDIT) as store:
        return find_element(store, "conv/0", [0], 1, lambda *_: None, allow).element.rule_name


def test_a_run_of_ones_own_is_trained_again_with_its_own_rule() -> None:
    record(rule="my_rules:Plain", lr_policy="my_rules:steady")
    assert confirmed() == 3
    assert explained() == "my_rules:Plain"
    assert Path("imported").exists()


@pytest.mark.parametrize(
    "seal", [None, "", 3, "\ud800", "0" * 64], ids=["none", "empty", "number", "half", "another"]
)
def test_a_strangers_rule_is_not_imported(seal: Any) -> None:
    record(rule="my_rules:Plain")
    change_manifest(seal=seal)
    for look in (confirmed, explained):
        with pytest.raises(UserError, match=r"not recorded here by you; --allow-user-code runs it"):
            look()
        assert not Path("imported").exists()
        assert look(allow=True)
        assert Path("imported").exists()
        forget_imports()


@pytest.mark.parametrize("key", ["source", "net", "working_directory", "configuration"])
def test_a_seal_holds_for_what_was_sealed_alone(key: str) -> None:
    record(rule="my_rules:Plain")
    with open_audit(AUDIT) as store:
        manifest = store.manifest()
    assert made_here(manifest)
    assert not made_here({**manifest, key: "another"})
    assert not made_here({**manifest, "added": 1})


def test_another_user_or_machine_has_another_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record()
    with open_audit(AUDIT) as store:
        manifest = store.manifest()
    assert made_here(manifest)
    monkeypatch.setenv("CAFFE_PYSGD_CACHE", str(tmp_path / "theirs"))
    assert not made_here(manifest)


def test_a_folder_that_is_gone_or_changed_hands_is_not_here(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    os.chdir(there)
    Path("my_rules.py").write_text(RULE)
    record(rule="my_rules:Plain")
    with open_audit(AUDIT) as store:
        manifest = store.manifest()
    os.chdir(tmp_path)
    assert made_here(manifest)
    if os.getuid() == 0:
        os.chown(there, 12345, -1)
        assert not made_here(manifest)
    there.rename(tmp_path / "elsewhere")
    assert not made_here(manifest)


def test_a_rule_that_the_manifest_does_not_name_is_not_imported() -> None:
    record()
    connection = sqlite3.connect(AUDIT)
    connection.execute("UPDATE parameters SET rule = 'my_rules:Plain'")
    connection.commit()
    with pytest.raises(UserError):
        explained()
    assert not Path("imported").exists()


def test_a_strangers_layer_in_python_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    sys.path.insert(0, str(Path.cwd()))
    record(WITH_LAYER)
    assert confirmed() == 3
    change_manifest(seal=None)
    forget_imports()
    with pytest.raises(UserError, match=r"layer 'mine' is written in Python \(my_layers\)"):
        confirmed()
    assert not Path("imported").exists()
    assert confirmed(allow=True) == 3


@pytest.mark.parametrize("strangers", [False, True])
def test_training_again_writes_no_file(strangers: bool) -> None:
    record(WRITES, iterations=1)
    Path("out.h5").write_text("my results")
    if strangers:
        change_manifest(seal=None)
    assert confirmed() == 1
    assert Path("out.h5").read_text() == "my results"


def test_a_test_net_in_a_file_of_its_own_writes_none_either() -> None:
    Path("test.prototxt").write_text(WRITES.replace("TRAIN", "TEST"))
    own = {"net": None, "train_net": "solver_net.prototxt", "test_net": "test.prototxt"}
    write_run(Path.cwd(), SMALL, test_iter=[1])
    solver = Path("solver.prototxt").read_text()
    lines = [line for line in solver.splitlines() if not line.startswith("net:")]
    lines += [f'{name}: "{path}"' for name, path in own.items() if path]
    Path("solver.prototxt").write_text("\n".join(lines))
    train(1)
    Path("out.h5").write_text("my results")
    assert confirmed() == 1
    assert Path("out.h5").read_text() == "my results"


def test_a_strangers_leveldb_is_not_opened() -> None:
    record()
    with open_audit(AUDIT) as store:
        net = store.manifest()["net"]
    data = 'layer { name: "db" type: "Data" top: "x" data_param { source: "made" batch_size: 1 } }'
    change_manifest(seal=None, net=net + data)
    with pytest.raises(UserError, match=r"its layer 'db' reads LevelDB"):
        confirmed()
    assert not Path("made").exists()


def test_no_user_code_is_a_flag_of_what_trains(cli: Callable, workdir: Path) -> None:
    write_solver(workdir, max_iter=1)
    yaml = workdir / "run.yaml"
    yaml.write_text("solver: solver.prototxt\nrun_dir: run\nupdate: {rule: 'my_rules:Plain'}\n")
    for command in ("train", "solve", "inject"):
        said = failure(cli(command, yaml, "--no-user-code"))
        assert said.endswith("no code of a user's own is run here: --no-user-code was given")
    said = failure(cli("verify", yaml, CAFFE_PYSGD_NO_USER_CODE="1"))
    assert said.endswith("no code of a user's own is run here: CAFFE_PYSGD_NO_USER_CODE is set")
    assert not Path("imported").exists()
    assert not Path("run").exists()
    assert cli("solve", "solver.prototxt", "--no-user-code").returncode == 0


@pytest.mark.parametrize("where", ["rule", "lr_policy", "group", "solver", "train net", "test net"])
def test_no_user_code_holds_wherever_code_is_named(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fields: Dict[str, Any] = {"lr_policy": "my_rules:steady"} if where == "solver" else {}
    net = WITH_LAYER if where == "train net" else SMALL
    write_solver(workdir, net, test_iter=1, test_interval=1, **fields)
    update: Dict[str, Any] = {
        "rule": {"rule": "my_rules:Plain"},
        "lr_policy": {"lr_policy": "my_rules:steady"},
        "group": {"params": [{"match": "*", "rule": "my_rules:Plain"}]},
    }.get(where, {})
    if where == "test net":
        Path("test.prototxt").write_text(WITH_LAYER)
        with open("solver.prototxt", "a") as file:
            file.write('test_net: "test.prototxt"\n')
    Path("run.yaml").write_text(json.dumps({"solver": "solver.prototxt", "update": update}))
    monkeypatch.setenv(NO_USER_CODE, "1")
    with pytest.raises(UserError, match="no code of a user's own is run here"):
        resolve(Path("run.yaml"))
    assert not Path("imported").exists()


def test_a_run_itself_writes_its_output_and_what_only_looks_does_not() -> None:
    record(WRITES, iterations=1)
    with h5py.File("out.h5", "r") as file:
        assert len(file["data"])
    before = Path("out.h5").read_bytes()
    resolve(Path("run.yaml"))
    assert Path("out.h5").read_bytes() == before
