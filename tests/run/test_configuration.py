"""The YAML: what it may say, and what it answers to what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.failures import refusal, refusal_of_file
from helpers.nets import write_solver

from caffe_pysgd.run.configuration import Configuration, UpdateOptions, read_configuration
from caffe_pysgd.run.resolve import resolve

UPDATE_KEYS = ", ".join(UpdateOptions.model_fields)


def refusal_of_yaml(path: Path) -> str:
    return refusal_of_file(read_configuration, path)


def refusal_of(directory: Path, text: str) -> str:
    path = directory / "run.yaml"
    path.write_text(text)
    return refusal_of_yaml(path)


def read(directory: Path, text: str) -> Configuration:
    """Return what a YAML with this text beside a solver file ``s`` says."""
    (directory / "s").touch()
    (directory / "run.yaml").write_text(text)
    return read_configuration(directory / "run.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("solver: s\nupdat: {}", ": updat: unknown key; did you mean 'update'?"),
        ("solvr: s", ": solvr: unknown key; did you mean 'solver'?"),
        (
            "net: n\nbase_lr: 0.1",
            ": net: unknown key; expected one of base, solver, run_dir, module_path, "
            "solver_overrides, update, snapshots, audit, ranks, loggers, log_every",
        ),
        ("{}", ": solver: is missing"),
        ("", ": got None; expected a mapping with the key 'solver'"),
        ("- solver", ": got ['solver']; expected a mapping with the key 'solver'"),
        ("solver", ": got 'solver'; expected a mapping with the key 'solver'"),
        ("solver: 3", ": solver: got 3; expected a path, as text"),
        ("solver: s\nrun_dir: [r]", ": run_dir: got ['r']; expected a path, as text"),
        ("solver: s\n1: 2", ": 1: got 1; expected a key that is text"),
        ("solver: s\nupdate:", ": update: got None; expected a mapping"),
        ("solver: s\nupdate: sgd", ": update: got 'sgd'; expected a mapping"),
        ("solver: [s", ":1: is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b\n\tc: d", ":2: is not YAML: found character '\\t' that cannot start any token"),
        ("solver: s\nsolver: t", ":2: is not YAML: the key 'solver' is given twice"),
        (
            "solver: s\nupdate:\n  momentum: 1\n  momentum: 2",
            ":4: is not YAML: the key 'momentum' is given twice",
        ),
        (
            "solver: !!python/name:os.system",
            ":1: is not YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'",
        ),
        (
            "\x01",
            ": is not YAML: unacceptable character #x0001: special characters are not allowed",
        ),
    ],
)
def test_a_yaml_that_says_something_else_is_refused_in_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    assert refusal_of(tmp_path, text) == said


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ("momentun: 1", "momentun: unknown key; did you mean 'momentum'?"),
        ("frequency: 1", f"frequency: unknown key; expected one of {UPDATE_KEYS}"),
        ("momentum: high", "momentum: got 'high'; expected a valid number"),
        ("momentum: true", "momentum: got True; expected a valid number"),
        ("momentum: [1]", "momentum: got [1]; expected a valid number"),
        ("momentum: .nan", "momentum: got nan; expected a finite number"),
        ("base_lr: 1e39", "base_lr: got 1e+39; expected what a float32 holds, 3.4e38 at most"),
        ("max_iter: 1.5", "max_iter: got 1.5; expected a valid integer"),
        ("max_iter: -1", "max_iter: got -1; expected greater than or equal to 0"),
        ("stepsize: 2147483648", "stepsize: got 2147483648; expected less than 2147483648"),
        ("stepvalue: 3", "stepvalue: got 3; expected a list"),
        ("stepvalue: [3, x]", "stepvalue[1]: got 'x'; expected a valid integer"),
        ("iter_size: 0", "iter_size: got 0; expected greater than or equal to 1"),
        ("exact: 1", "exact: got 1; expected a valid boolean"),
        ("kernels: fast", "kernels: got 'fast'; expected 'auto', 'fused', 'native' or 'numpy'"),
        ("resume: yes", "resume: got True; expected 'auto', 'always' or 'never'"),
        ("rule: 3", "rule: got 3; expected a valid string"),
        ("params: {match: a}", "params: got {'match': 'a'}; expected a list"),
        ("params: [conv1]", "params[0]: got 'conv1'; expected a mapping"),
        ("params: [{lr_mult: 1}]", "params[0].match: is missing"),
        (
            "params: [{match: a}, {match: b, lr_mul: 1}]",
            "params[1].lr_mul: unknown key; did you mean 'lr_mult'?",
        ),
        (
            "params: [{match: a, lr_mult: x}]",
            "params[0].lr_mult: got 'x'; expected a valid number",
        ),
    ],
)
def test_an_update_that_is_not_allowed_is_refused_naming_the_key(
    tmp_path: Path, update: str, said: str
) -> None:
    assert refusal_of(tmp_path, f"solver: s\nupdate: {{{update}}}") == f": update.{said}"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("no.yaml", "n" * 300):
        assert refusal_of_yaml(tmp_path / name) == (
            ": there is no such file; give a solver.prototxt or a YAML"
        )


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert refusal_of_yaml(tmp_path / "folder.yaml") == ": cannot be read: Is a directory"


def test_a_yaml_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"solver: \xff\xfe")
    assert ": is not YAML: 'utf-8' codec can't decode byte 0xff" in refusal_of_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E3", 1000.0), ("-2e+1", -20.0), ("1.e-2", 0.01), (".5", 0.5), ("3", 3)],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    assert read(tmp_path, f"solver: s\nupdate: {{gamma: {text}}}").update.hyperparameters() == {
        "gamma": value
    }


def test_words_that_only_look_like_numbers_stay_words(tmp_path: Path) -> None:
    configuration = read(tmp_path, "solver: s\nrun_dir: 1e5x")
    assert configuration.run_dir == tmp_path / "1e5x"


def test_null_and_nothing_said_are_the_same(tmp_path: Path) -> None:
    configuration = read(tmp_path, "solver: s\nupdate: {momentum: 0, gamma: null}")
    assert configuration.update == UpdateOptions(momentum=0)
    assert configuration.update.gamma is None


def test_paths_are_relative_to_the_yaml(workdir: Path) -> None:
    (workdir / "deep").mkdir()
    (workdir / "s").touch()
    configuration = read(Path("deep"), "solver: ../s\nrun_dir: runs/a")
    assert configuration.solver == Path("deep/../s")
    assert configuration.run_dir == Path("deep/runs/a")
    configuration = read(Path("deep"), f"solver: {workdir}/s\nrun_dir: /abs/run")
    assert (configuration.solver, configuration.run_dir) == (workdir / "s", Path("/abs/run"))


def test_a_bare_solver_file_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text("")
    assert read_configuration(path) == Configuration(solver=path, module_path=tmp_path)


def resolved(workdir: Path, update: str) -> str:
    write_solver(workdir)
    path = workdir / "run.yaml"
    path.write_text(f"solver: solver.prototxt\nupdate: {{{update}}}")
    return refusal(resolve, path)


def test_a_pattern_that_matches_no_parameter_is_refused_with_those_there_are(workdir: Path) -> None:
    assert resolved(workdir, 'params: [{match: "conv/*"}, {match: "conv9/*", lr_mult: 0}]') == (
        f"{workdir}/run.yaml: update.params[1].match: 'conv9/*' matches no parameter; there are "
        "conv/0, conv/1, hidden/0, hidden/1, out/0"
    )


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ("rule: sgdd", "update.rule: got 'sgdd'; expected one of "),
        ("lr_policy: invv", "lr_policy: got 'invv'; expected one of fixed, step, exp, inv, "),
        ("lr_policy: step", "stepsize: got 0; expected more than 0 (lr_policy 'step')"),
        ("regularization_type: L3", "regularization_type: got 'L3'; expected one of L2, L1"),
    ],
)
def test_a_value_that_caffe_would_abort_on_is_refused_naming_the_yaml(
    workdir: Path, update: str, said: str
) -> None:
    assert resolved(workdir, update).startswith(f"{workdir}/run.yaml: {said}")


def test_a_missing_solver_file_is_named_with_the_yaml_that_names_it(workdir: Path) -> None:
    path = workdir / "run.yaml"
    path.write_text("solver: no.prototxt")
    assert refusal(resolve, path) == (
        f"{path}: solver: got '{workdir}/no.prototxt'; there is no such file (a path in a YAML is "
        "relative to the YAML)"
    )
