"""``caffe-pysgd explain``, on recorded runs: from a probe, and by training again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
from helpers.failures import failure
from helpers.nets import write_solver
from helpers.programs import shown_on_terminal
from helpers.recorded_runs import change, record_iterations

from caffe_pysgd.stock.snapshots import read_model

F = np.float32

MY_RULES = """
import numpy as np
import caffe_pysgd

class Sign(caffe_pysgd.UpdateRule):
    slots = ("last",)

    def update(self, p):
        p.state["last"][:] = p.gradient
        return p.rate * np.sign(p.gradient)
"""

CLIPPED = {
    "clip_gradients": 3, "iter_size": 2, "lr_policy": "inv", "gamma": 0.01, "power": 0.75,
    "max_iter": 12, "snapshot": 5,
}  # fmt: skip


def record(workdir: Path, update: str = "{}", iterations: int = 12, **fields: Any) -> None:
    """Train with probes on two weights."""
    write_solver(workdir, **{**CLIPPED, **fields})
    (workdir / "run.yaml").write_text(
        "solver: solver.prototxt\nrun_dir: run\n"
        f"update: {update}\n"
        "audit: {probes: [{param: conv/0, index: [3, 1, 0, 2]}, {param: hidden/1, index: [4]}]}\n"
    )
    record_iterations(Path("run.yaml"), iterations)


def board(output: str) -> Dict[str, List[str]]:
    """Return the lines by name: formula, numbers or note, decimal and hex."""
    lines = {}
    for line in output.splitlines():
        found = re.match(r"(\S.*?)  +(= .*?)?(?:  +(.*?))?  += (\S+) +(-?0x\S+)", line)
        if found:
            lines[found[1]] = [found[2] or "", found[3] or "", found[4], found[5]]
    return lines


def test_a_probed_weight_is_explained_down_to_the_weight_of_the_snapshot(
    cli: Callable, workdir: Path
) -> None:
    record(workdir)
    place = ("--param", "conv/0", "--index", "3,1,0,2", "--iteration", "9", "--json", "told.json")
    explained = cli("explain", "run", *place)
    assert (explained.returncode, explained.stderr) == (0, "")
    lines = board(explained.stdout)
    lines.pop("norm", None)  # known where the recorded figures happen to tell it to the bit
    assert list(lines) == [
        "weight", "gradient", "clip_factor", "clipped", "part", "normalized", "decay",
        "regularized", "rate", "local_rate", "history", "product", "new history", "update",
        "new weight",
    ]  # fmt: skip
    assert lines["rate"][:2] == [
        "= base_lr · (1 + gamma · i)^-power",
        "= 0.01 · (1 + 0.01 · 9)^-0.75",
    ]
    (model,) = workdir.glob("**/*_iter_10.caffemodel")
    weight = read_model(model)["conv"][0].reshape(5, 2, 3, 3)[3, 1, 0, 2]
    assert F(lines["new weight"][2]) == weight
    assert float.fromhex(lines["new weight"][3]) == float(weight)
    last = explained.stdout.splitlines()[-1]
    assert last == "explain: the formulas give all 9 values that the update left, to the bit"
    told = json.loads(Path("told.json").read_text())
    assert told["verdict"] == last
    assert [line["name"] for line in told["lines"] if line["name"] != "norm"] == list(lines)
    assert told["lines"][-1]["hex"] == float(weight).hex()


def test_a_weight_without_a_probe_is_explained_by_training_again(
    cli: Callable, workdir: Path
) -> None:
    record(workdir)
    probed = cli("explain", "run", "--param=conv/0", "--index=3,1,0,2", "--iteration=8")
    (workdir / "run.yaml").write_text("solver: solver.prototxt\nrun_dir: bare\naudit:\n")
    record_iterations(Path("run.yaml"), 12)
    again = cli("explain", "bare", "--param=conv/0", "--index=3,1,0,2", "--iteration=8")
    assert (again.returncode, again.stderr) == (0, "")
    assert "trained again up to here" in again.stdout
    first, second = board(probed.stdout), board(again.stdout)
    assert second.pop("norm")  # of which a probe knows nothing
    first.pop("norm", None)
    assert second.pop("clip_factor")[2:] == first.pop("clip_factor")[2:]
    assert second == first


@pytest.mark.parametrize("rule", ["adam", "lars", "lamb"])
def test_other_rules(rule: str, cli: Callable, workdir: Path) -> None:
    update = f"{{rule: {rule}, base_lr: 0.001, momentum: 0.9, trust_coefficient: 0.02}}"
    record(workdir, update, 6)
    explained = cli("explain", "run", "--param=hidden/1", "--index=4", "--iteration=5")
    assert explained.returncode == 0, explained.stderr
    assert ("trained again" in explained.stdout) == (rule != "adam")
    assert "to the bit" in explained.stdout.splitlines()[-1]


def test_a_rule_of_ones_own_shows_what_it_did(cli: Callable, workdir: Path) -> None:
    (workdir / "my_rules.py").write_text(MY_RULES)
    record(workdir, "{rule: 'my_rules:Sign'}", 3, clip_gradients=-1)
    for element in ("3,1,0,2", "3,1,0,1"):  # the first one has a probe
        explained = cli("explain", "run", "--param=conv/0", f"--index={element}", "--iteration=2")
        assert explained.returncode == 0, explained.stderr
        lines = board(explained.stdout)
        assert lines["new last"][2:] == lines["regularized"][2:]
        assert lines["update"][0] == "= local_rate · sign"
        assert "to the bit" in explained.stdout.splitlines()[-1]


def test_a_changed_probe_is_found(cli: Callable, workdir: Path) -> None:
    record(workdir)
    sql = "UPDATE probes SET bits = bits + 1 WHERE stage = 'history' AND parameter = 0"
    change(Path("run/audit.sqlite"), sql)
    explained = cli("explain", "run", "--param=conv/0", "--index=3,1,0,2", "--iteration=9")
    assert explained.returncode == 1
    last = explained.stdout.splitlines()[-1]
    assert re.match(r"explain: the update left new history = \S+, the formula gives \S+$", last)


def test_a_terminal_too_narrow_for_a_line_gets_two(workdir: Path) -> None:
    record(workdir)
    flags = ("--param=conv/0", "--index=3,1,0,2", "--iteration=9")
    shown = shown_on_terminal("stdout", "explain", "run", *flags, COLUMNS="80")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 80
    (first,) = [n for n, line in enumerate(lines) if line.startswith("new history")]
    assert lines[first].split("  ")[-1] == "= local_rate · regularized + product"
    assert re.search(r"= \S+ · \S+ \+ \S+", lines[first + 1])
    assert re.search(r"= \S+  -?0x\S+  recorded$", lines[first + 2])


def test_an_encoding_without_a_dot_gets_a_star(cli: Callable, workdir: Path) -> None:
    record(workdir, iterations=3)
    place = ("--param=conv/0", "--index=3,1,0,2", "--iteration=2")
    explained = cli("explain", "run", *place, PYTHONIOENCODING="ascii")
    assert (explained.returncode, explained.stderr) == (0, "")
    assert "local_rate * regularized + product" in explained.stdout


def test_mistakes_are_told_in_one_line(cli: Callable, workdir: Path) -> None:
    freeze = "{params: [{match: 'hidden/*', freeze_until: 3}]}"
    record(workdir, freeze, 5)
    good = {"--param": "conv/0", "--index": "3,1,0,2", "--iteration": "4"}
    for wrong, words in (
        ({"--param": "con/0"}, "there is no parameter 'con/0'; did you mean 'conv/0'?"),
        ({"--param": "x"}, "there is no parameter 'x'; there are conv/0, conv/1, hidden/0"),
        ({"--index": "3,1,0"}, "--index: found 3,1,0, conv/0 has the shape 5 x 2 x 3 x 3"),
        ({"--index": "3,1,3,0"}, "--index: found 3,1,3,0, conv/0 has the shape 5 x 2 x 3 x 3"),
        ({"--index": "90"}, "--index: found 90, conv/0 has the shape 5 x 2 x 3 x 3"),
        ({"--index": "a"}, "--index: got 'a'; expected numbers"),
        ({"--iteration": "5"}, "iteration 5 is not recorded; there are 0 to 4"),
        (
            {"--param": "hidden/1", "--index": "4", "--iteration": "2"},
            "hidden/1 was not updated at iteration 2: it was frozen",
        ),
        (
            {"--param": "hidden/0", "--index": "4", "--iteration": "2"},
            "hidden/0 was not updated at iteration 2: it was frozen",
        ),
    ):
        flags = [f"{name}={value}" for name, value in {**good, **wrong}.items()]
        assert words in failure(cli("explain", "run", *flags))
    assert "give an audit or a run directory" in failure(
        cli("explain", "nowhere", *[f"{name}={value}" for name, value in good.items()])
    )
