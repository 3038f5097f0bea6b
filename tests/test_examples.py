"""The example solver files, trained by the stock binary for as long as the README says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from helpers.nets import RULES_OF_CAFFE, prototxt
from helpers.runs import Both, assert_same_bits, caffe_train

VALUES = {"lenet": 431080, "autoencoder": 2837314}
SLOTS = {"AdaDelta": 2, "Adam": 2}
RATES = {"AdaDelta": 1, "Adam": 0.001, "RMSProp": 0.001, "AdaGrad": 0.01}


@pytest.fixture
def examples(mnist: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder with the MNIST example, as from the project's own."""
    monkeypatch.chdir(mnist)
    return mnist


def test_lenet_verifies_with_no_difference_after_200_iterations(
    examples: Path, cli: Callable
) -> None:
    process = cli("verify", "examples/mnist/lenet_solver.prototxt", "--iterations", 200)
    assert process.returncode == 0, process.stderr
    last = process.stdout.splitlines()[-1]
    assert last == "verify: 0 of 862160 values differ, max 0 ulp, after 200 iterations"
    ((stock, python),) = re.findall(r"accuracy = (\S+) stock, (\S+) Python", process.stdout)
    assert stock == python and float(python) > 0.9


def test_lenet_stopped_at_100_and_resumed_has_the_bits_of_the_native_solver(
    examples: Path, workdir: Path
) -> None:
    solver = examples / "examples" / "mnist" / "lenet_solver.prototxt"
    source = workdir / "solver.prototxt"
    source.write_text(re.sub(r"test_\w+: \d+", "", solver.read_text()))
    both = Both.write(source)
    for path in (both.stock, both.ours):
        whole = path.read_text()
        path.write_text(whole.replace("max_iter: 200", "max_iter: 100"))
        assert caffe_train(path).returncode == 0
        path.write_text(whole)
        resumed = caffe_train(path, f"--snapshot={path.parent}/snap_iter_100.solverstate")
        assert resumed.returncode == 0
    assert "state resumed at iteration 100" in resumed.stderr
    assert_same_bits(both.final(200))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES_OF_CAFFE)
@pytest.mark.parametrize("net", VALUES)
def test_every_rule_of_caffe_verifies_on_lenet_and_on_the_autoencoder(
    examples: Path, workdir: Path, cli: Callable, net: str, rule: str
) -> None:
    own = {"base_lr": RATES.get(rule, 0.01), **RULES_OF_CAFFE[rule], "type": rule}
    text = (examples / "examples" / "mnist" / f"{net}_solver.prototxt").read_text()
    for name in own:
        text = re.sub(rf"^{name}: .*$", "", text, flags=re.MULTILINE)
    source = workdir / f"{net}_{rule}.prototxt"
    source.write_text(text + prototxt(own))
    process = cli("verify", source, "--iterations", 100)
    assert process.returncode == 0, process.stderr
    count = VALUES[net] * (1 + SLOTS.get(rule, 1))
    last = process.stdout.splitlines()[-1]
    assert last == f"verify: 0 of {count} values differ, max 0 ulp, after 100 iterations"


def test_a_rule_of_ones_own_trains_lenet_from_yaml(examples: Path, cli: Callable) -> None:
    """At most 15 lines of code, and the net learns."""
    here = examples / "examples" / "mnist"
    code = (here / "my_rules.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    yaml = (here / "lenet_sign.yaml").read_text()
    (here / "quick.yaml").write_text(yaml.replace("update:", "update:\n  max_iter: 100"))
    process: subprocess.CompletedProcess = cli("train", "examples/mnist/quick.yaml")
    assert process.returncode == 0
    accuracies = re.findall(r"Test net output #0: accuracy = (\S+)", process.stderr)
    assert float(accuracies[0]) < 0.5 < 0.9 < float(accuracies[-1])
