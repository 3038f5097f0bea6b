"""What changes a run besides its YAML: ``--set``, ``base:``, ``solver_overrides``, ``run_dir``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from helpers.failures import failure, refusal
from helpers.nets import SMALL, write_solver

from caffe_pysgd.audit.manifest import read
from caffe_pysgd.run.configuration import Configuration, read_configuration
from caffe_pysgd.run.overrides import merge, put
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.resolved import resolved


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read_with(tmp_path: Path, text: str, *settings: str) -> Configuration:
    (tmp_path / "s").touch()
    return read_configuration(write(tmp_path / "run.yaml", f"solver: s\n{text}"), settings)


def test_a_setting_takes_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    read = read_with(
        tmp_path,
        "update: {base_lr: 1, params: [{match: a}, {match: b}]}",
        "update.base_lr=1e-4",
        "update.params[1].lr_mult=0",
        "update.stepvalue=[3, 5]",
        "solver.random_seed=7",
        "audit.every=3",
    )
    assert read.update.base_lr == 1e-4
    assert [group.lr_mult for group in read.update.params] == [None, 0]
    assert read.update.stepvalue == [3, 5]
    assert read.solver_overrides == {"random_seed": 7}
    assert read.audit is not None and read.audit.every == 3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("update.momentun=1", "run.yaml: update.momentun: unknown key; did you mean 'momentum'?"),
        ("updat.momentum=1", "run.yaml: updat: unknown key; did you mean 'update'?"),
        ("update.momentum=x", "run.yaml: update.momentum: got 'x'; expected a valid number"),
        ("update.momentum", "--set update.momentum: expected key=value, such as"),
        ("update..momentum=1", "--set update..momentum: expected a key, such as update.base_lr"),
        ("=1", "--set : expected a key"),
        ("update.stepvalue=[1", "--set update.stepvalue: is not YAML: "),
        ("update.params[0].lr_mult=1", "--set update.params[0].lr_mult: there is no entry 0"),
        ("run_dir=a{nam}", "run_dir: got '{nam}'; expected one of {name}, {now}"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_in_one_line(
    tmp_path: Path, setting: str, said: str
) -> None:
    assert said in refusal(read_with, tmp_path, "", setting)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("random_sed: 1", "SolverParameter has no field 'random_sed'; did you mean 'random_seed'?"),
        ("random_seed: x", "got 'x'; expected a whole number"),
        ("random_seed: true", "got True; expected a whole number"),
        ("display: 99999999999", "got 99999999999; "),
        ("solver_mode: CPX", "got 'CPX'; expected one of CPU, GPU"),
        ("test_iter: 3", "got 3; expected a list"),
        ("display: [3]", "got [3]; expected one value"),
        ("base_lr: .inf", "got inf; expected a finite number"),
        ("debug_info: 1", "got 1; expected true or false"),
        ("net_param: {}", "is a whole message"),
        ("average_loss: 0", "average_loss: got 0; expected 1 or more"),
    ],
)
def test_a_solver_field_that_is_wrong_is_refused_in_one_line(
    workdir: Path, overrides: str, said: str
) -> None:
    write_solver(workdir, SMALL)
    path = write(
        workdir / "run.yaml", f"solver: solver.prototxt\nsolver_overrides: {{{overrides}}}"
    )
    assert said in refusal(resolve, path)


def test_solver_fields_reach_the_solver(workdir: Path) -> None:
    write_solver(workdir, SMALL)
    text = "solver_overrides: {random_seed: 9, type: Adam, snapshot_format: HDF5, base_lr: 0.5}"
    run = resolve(write(workdir / "run.yaml", f"solver: solver.prototxt\n{text}"))
    assert (run.solver.random_seed, run.rule, run.hdf5) == (9, "adam", True)
    assert float(run.h.base_lr) == 0.5
    bare = resolve(workdir / "solver.prototxt", settings=["solver.random_seed=4"])
    assert bare.solver.random_seed == 4


def test_a_field_that_is_given_twice_is_refused(workdir: Path) -> None:
    write_solver(workdir, SMALL)
    path = write(workdir / "run.yaml", "solver: solver.prototxt\nupdate: {base_lr: 0.1, rule: sgd}")
    for settings, key in (
        (["solver.base_lr=1"], "update.base_lr"),
        (["solver.type=Adam"], "update.rule"),
        (["solver.snapshot_prefix=a", "snapshots.prefix=b"], "snapshots.prefix"),
    ):
        said = refusal(resolve, path, None, 0, (), settings)
        assert f"{key} is given, too" in said


def test_a_base_is_merged_and_its_paths_are_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a/s.prototxt", "")
    write(
        tmp_path / "a/base.yaml",
        "solver: s.prototxt\nrun_dir: out\nupdate: {rule: 'm:R', base_lr: 1, stepvalue: [1]}",
    )
    write(tmp_path / "middle.yaml", "base: a/base.yaml\nupdate: {base_lr: 2}")
    path = write(tmp_path / "b/run.yaml", "base: ../middle.yaml\nupdate: {stepvalue: [2, 3]}")
    read = read_configuration(path)
    assert read.solver.samefile(tmp_path / "a/s.prototxt")
    assert read.run_dir is not None and read.run_dir.parent.samefile(tmp_path / "a")
    assert read.module_path is not None and read.module_path.samefile(tmp_path / "a")
    assert (read.update.base_lr, read.update.stepvalue) == (2, [2, 3])
    solver = write(tmp_path / "c.yaml", "base: a/s.prototxt")
    assert read_configuration(solver).solver.samefile(tmp_path / "a/s.prototxt")


def test_a_bases_snapshots_stay_beside_it(workdir: Path) -> None:
    write_solver(workdir, SMALL, snapshot_prefix="s")
    write(
        Path("a/base.yaml"),
        "solver: ../solver.prototxt\nsnapshots: {prefix: kept/, overwrite: true, keep_last: 3}",
    )
    run = resolve(write(Path("run.yaml"), "base: a/base.yaml\nsnapshots: {keep_last: 2}"))
    assert run.solver.snapshot_prefix == "a/kept/run"
    # As another run may name it; leave to overwrite is given once.
    assert resolved(run, Path("d/e"))["snapshots"] == {"prefix": "../../a/kept/run", "keep_last": 2}
    elsewhere = resolve(Path("run.yaml"), settings=["snapshots.prefix=here/t"])
    assert elsewhere.solver.snapshot_prefix == "here/t"
    write(Path("own.yaml"), "solver: solver.prototxt\nrun_dir: d")
    own = resolve(Path("own.yaml"))
    assert own.solver.snapshot_prefix == "d/snapshots/s"
    assert resolved(own, Path("d"))["snapshots"] == {}
    told = resolve(Path("own.yaml"), settings=["solver.snapshot_prefix=u"])
    assert told.solver.snapshot_prefix == "u"


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    for text, said in (
        ("base: no.yaml", "run.yaml: base: got 'no.yaml'; expected a YAML or a solver file"),
        (f"base: {'n' * 300}", "expected a YAML or a solver file"),
        ("base: [a]", "run.yaml: base: got ['a']; expected"),
        ("base: run.yaml", "base: a file is based on itself"),
    ):
        assert said in refusal(read_configuration, write(tmp_path / "run.yaml", text))


def test_merging_changes_neither_side() -> None:
    base: Dict[str, Any] = {"update": {"a": 1, "params": [{"match": "x"}]}}
    merged = merge(base, {"update": {"b": 2}})
    put(merged, "update.params[0].lr_mult", 3)
    put(merged, "update.a", 5)
    assert base == {"update": {"a": 1, "params": [{"match": "x"}]}}
    assert merged["update"]["params"] == [{"match": "x", "lr_mult": 3}]


def test_a_run_dir_may_hold_the_name_and_the_time(tmp_path: Path) -> None:
    read = read_with(tmp_path, "run_dir: 'runs/{name}-{now}'")
    assert read.run_dir is not None
    assert re.fullmatch(r"run-\d{8}-\d{6}", read.run_dir.name)


@pytest.mark.parametrize("command", ["train", "solve"])
def test_the_resolved_configuration_trains_to_the_same_bits(
    cli: Callable[..., Any], workdir: Path, command: str
) -> None:
    write_solver(workdir, SMALL, max_iter=6, snapshot=0, type="SGD")
    write(workdir / "rules/mine.py", "from caffe_pysgd.update.rules.caffe import SGD as Mine\n")
    write(
        workdir / "rules/base.yaml",
        "solver: ../solver.prototxt\nupdate: {rule: 'mine:Mine', lr_policy: table, "
        "lr_table: {0: 0.1, 3: 0.01}, params: [{match: '*/1', decay_mult: 0}]}\naudit: {every: 2}",
    )
    source = write(workdir / "run.yaml", "base: rules/base.yaml\nrun_dir: first")
    settings = ("--seed=11", "--set", "update.base_lr=0.05", "--iterations=8")
    assert cli(command, source, *settings).returncode == 0
    stated = read(workdir / "first/manifest.json")
    assert stated["random_seed"] == 11 and stated["hyperparameters"]["max_iter"] == 8
    assert {"host", "versions", "git", "command", "cpu"} <= set(stated)
    again = cli(command, "first/resolved.yaml", "--run-dir=second")
    assert again.returncode == 0, again.stderr
    compared = cli("audit", "compare", "first", "second")
    assert compared.returncode == 0, compared.stdout
    once_more = cli(command, "first/resolved.yaml", "--overwrite")  # into its own folder
    assert once_more.returncode == 0, once_more.stderr


def test_a_foreign_resolved_yaml_is_not_replaced(cli: Callable[..., Any], workdir: Path) -> None:
    write_solver(workdir, SMALL, max_iter=1)
    write(workdir / "run.yaml", "solver: solver.prototxt\nrun_dir: d")
    write(workdir / "d/resolved.yaml", "mine")
    assert "caffe-pysgd did not write it" in failure(cli("train", "run.yaml"))


@pytest.mark.parametrize("command", ["inject", "verify", "schedule"])
def test_other_commands_take_settings_too(
    cli: Callable[..., Any], workdir: Path, command: str
) -> None:
    write_solver(workdir, SMALL, max_iter=4)
    write(workdir / "run.yaml", "solver: solver.prototxt\nrun_dir: d")
    done = cli(command, "run.yaml", "--set", "update.momentum=0.25", "--seed", "3")
    assert done.returncode == 0, done.stderr
    said = failure(cli(command, "run.yaml", "--set", "update.momentun=0.25"))
    assert said == "run.yaml: update.momentun: unknown key; did you mean 'momentum'?"
