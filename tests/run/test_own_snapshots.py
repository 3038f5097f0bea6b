"""A YAML's run owns its snapshots: where they go, and that no other run's are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
from helpers.failures import failure, refusal
from helpers.hosts import PYTHON_HOSTS
from helpers.nets import SMALL, write_solver

import caffe_pysgd
from caffe_pysgd.run.own_snapshots import chosen_snapshot
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.start import check_snapshot

EARLIER = "is of an earlier run, whose snapshots this one would replace; go on from them"


def write_yaml(folder: Path, name: str = "a", more: str = "", **fields: Any) -> Path:
    write_solver(folder, SMALL, snapshot_prefix="s", **{"max_iter": 4, "snapshot": 2, **fields})
    path = folder / f"{name}.yaml"
    path.write_text(f"solver: solver.prototxt\nrun_dir: runs/{name}\n{more}")
    return path


def files(folder: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_iter_*")}


def test_where_they_go(workdir: Path) -> None:
    def prefix(name: str = "a", more: str = "", **told: Any) -> str:
        source = write_yaml(Path("."), name, more)
        return str(resolve(source, **told).solver.snapshot_prefix)

    assert prefix() == "runs/a/snapshots/s"
    assert prefix("b") == "runs/b/snapshots/s"
    assert prefix(run_dir=Path("d")) == "d/snapshots/s"
    assert prefix(more="snapshots: {prefix: here/t}\n") == "here/t"
    assert prefix(more="snapshots: {prefix: here/}\n") == "here/a"
    assert str(resolve(Path("solver.prototxt")).solver.snapshot_prefix) == "s"
    assert str(resolve(Path("solver.prototxt"), run_dir=Path("d")).solver.snapshot_prefix) == "s"
    (workdir / "deep").mkdir()
    source = write_yaml(workdir / "deep", more="snapshots: {prefix: t}\n")
    assert str(resolve(source).solver.snapshot_prefix) == f"{workdir}/deep/t"


@pytest.mark.parametrize("command", ["train", "solve"])
def test_two_yamls_over_one_solver_file_keep_theirs(workdir: Path, cli: Any, command: str) -> None:
    for name in ("a", "b"):
        write_yaml(workdir, name)
        assert cli(command, f"{name}.yaml").returncode == 0
        assert sorted(files(workdir / f"runs/{name}/snapshots")) == [
            "s_iter_2.caffemodel", "s_iter_2.solverstate",
            "s_iter_4.caffemodel", "s_iter_4.solverstate",
        ]  # fmt: skip
    assert files(workdir) == {}


@pytest.mark.parametrize("command", ["train", "solve"])
def test_an_earlier_runs_are_not_replaced(workdir: Path, cli: Any, command: str) -> None:
    write_yaml(workdir, max_iter=6)
    assert cli(command, "a.yaml").returncode == 0
    mine = workdir / "runs/a/snapshots"
    before = files(mine)
    said = failure(cli(command, "a.yaml", "--iterations=4"))
    assert said.startswith("a.yaml: runs/a/snapshots/s_iter_6.solverstate " + EARLIER)
    (workdir / "b.yaml").write_text(
        "solver: solver.prototxt\nrun_dir: runs/b\nsnapshots: {prefix: runs/a/snapshots/s}\n"
    )
    assert EARLIER in failure(cli(command, "b.yaml"))
    assert files(mine) == before
    # To go on from one of them is no other run; and with the flag, all of them go.
    resumed = cli(command, "a.yaml", "--snapshot=runs/a/snapshots/s_iter_4.solverstate")
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(files(mine)) == sorted(before)
    assert cli(command, "a.yaml", "--overwrite", "--iterations=4").returncode == 0
    assert sorted(files(mine)) == sorted(name for name in before if "_6." not in name)


@pytest.mark.parametrize("command", ["train", "solve"])
def test_a_torn_file_is_nobodys_loss(workdir: Path, cli: Any, command: str) -> None:
    write_yaml(workdir)
    (workdir / "runs/a/snapshots").mkdir(parents=True)
    (workdir / "runs/a/snapshots/s_iter_2.caffemodel").write_bytes(b"\x0a\xff\x01torn")
    assert cli(command, "a.yaml").returncode == 0


def test_a_bare_solver_file_does_as_caffe(workdir: Path, cli: Any) -> None:
    write_yaml(workdir)
    for _ in range(2):
        assert cli("solve", "solver.prototxt").returncode == 0
    assert len(files(workdir)) == 4


def test_snapshots_from_before_a_run_had_its_own(workdir: Path, cli: Any) -> None:
    """They lie where the solver file says; the manifest of that time tells."""
    write_yaml(workdir, more="snapshots: {prefix: s}\n")
    assert cli("train", "a.yaml").returncode == 0
    write_yaml(workdir)
    resumed = cli("train", "a.yaml", "--snapshot=auto", "--iterations=6")
    assert resumed.returncode == 0, resumed.stderr
    assert "caffe-pysgd: resuming from s_iter_4.solverstate, at iteration 4" in resumed.stderr
    assert "s_iter_6.solverstate" in files(workdir / "runs/a/snapshots")
    assert len(files(workdir)) == 4


@pytest.mark.parametrize("host", PYTHON_HOSTS)
def test_the_hosts_in_python_replace_none_either(workdir: Path, host: str) -> None:
    path = write_yaml(workdir)
    make = PYTHON_HOSTS[host]
    first = make(path)
    first.solve()
    before = files(workdir / "runs/a/snapshots")
    for begin in (lambda s: s.step(1), lambda s: s.solve(), lambda s: s.snapshot()):
        second = make(path)
        assert EARLIER in refusal(begin, second)
        assert second.iter == 0
    assert files(workdir / "runs/a/snapshots") == before
    second = make(path)
    second.restore("auto")
    assert second.iter == 4
    second.step(2)
    path = write_yaml(workdir, more="snapshots: {overwrite: true}\n")
    make(path).step(2)
    assert len(files(workdir / "runs/a/snapshots")) == 2


def test_mistakes_in_the_keys(workdir: Path) -> None:
    for text, words in (
        ("{keep_last: 0}", "snapshots.keep_last: got 0; expected"),
        ("{keep_best: loss}", "snapshots.keep_best: got 'loss'; expected a mapping"),
        ("{keep_best: {}}", "snapshots.keep_best: got {}; expected {max: OUTPUT} or {min: OUTPUT}"),
        ("{keep_best: {best: x}}", "snapshots.keep_best.best: unknown key; expected one of max"),
        ("{prefixx: x}", "snapshots.prefixx: unknown key; did you mean 'prefix'?"),
    ):
        path = write_yaml(workdir, more=f"snapshots: {text}\n")
        assert words in refusal(caffe_pysgd.get_solver, path)


@pytest.mark.parametrize(
    "manifest",
    ["[]", "3", "[" * 100_000, "\ud7ff", '{"source": "a.yaml", "solver": 3}', '{"source": [[]]}'],
    ids=["list", "number", "nested", "text", "solver", "source"],
)
def test_nonsense_in_the_manifest_of_its_folder_tells_nothing(workdir: Path, manifest: str) -> None:
    run = resolve(write_yaml(Path(".")))
    run.directory.mkdir(parents=True)
    (run.directory / "manifest.json").write_text(manifest)
    assert chosen_snapshot(run, "auto", check_snapshot, print) is None
