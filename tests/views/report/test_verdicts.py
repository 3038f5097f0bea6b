"""What the page says of a run in words: exactness, ledger, events, manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from helpers.audits import write_audit, write_sessions
from helpers.nets import write_solver
from helpers.recorded_runs import change

from caffe_pysgd.audit.store import Store
from caffe_pysgd.views.report import write_report
from caffe_pysgd.views.report.gathering import gather
from caffe_pysgd.views.report.verdicts import verdicts


def verdicts_of(run: Path, check: bool = True) -> list:
    with Store(run) as store:
        return verdicts(gather("run", store, check=check))


FOUND = {"iterations": 200, "values": 862160, "differ": 0, "max_ulp": 0}


@pytest.mark.parametrize("kind", ["verify", "shadow"])
def test_exactness_is_what_a_verdict_beside_the_audit_says(workdir: Path, kind: str) -> None:
    write_audit(Path("run", "audit.sqlite"), 3, manifest={"source": "lenet.yaml"})
    exactness, _, _ = verdicts_of(Path("run"))
    assert (exactness.state, exactness.title) == ("open", "Exactness not checked")
    assert exactness.command is None  # what the run was started from is not there
    Path("lenet.yaml").write_text("")
    exactness, _, _ = verdicts_of(Path("run"))
    assert exactness.command == "caffe-pysgd verify lenet.yaml --json run/verify.json"
    beside = Path("run", f"{kind}.json")
    beside.write_text(json.dumps(FOUND))
    exactness, _, _ = verdicts_of(Path("run"))
    assert exactness.state == "good"
    assert exactness.text == (
        f"0 of 862,160 values differ, max 0 ulp, after 200 iterations ({kind}.json)."
    )
    beside.write_text(json.dumps({**FOUND, "differ": 7, "max_ulp": 2}))
    exactness, _, _ = verdicts_of(Path("run"))
    assert (exactness.state, exactness.title) == ("bad", "Not the native solver's bits")
    nonsense = [json.dumps({**FOUND, "differ": value}) for value in (None, [], float("inf"))]
    for text in ("{", "[]", '{"differ": 0}', "[" * 100_000, *nonsense):
        beside.write_text(text)
        assert verdicts_of(Path("run"))[0].title == "Exactness unknown"


@pytest.mark.parametrize("said", [{"rule": "lion"}, {"rule": "sgd", "beyond_caffe": "rule 'lion'"}])
def test_no_command_is_recommended_that_would_be_refused(workdir: Path, said: Any) -> None:
    Path("lion.yaml").write_text("")
    write_audit(Path("run", "audit.sqlite"), 3, manifest={"source": "lion.yaml", **said})
    exactness, _, _ = verdicts_of(Path("run"))
    assert exactness.text == "Caffe has no rule 'lion': there is no native run to compare with."
    assert exactness.command is None


def test_what_speaks_against_a_run_comes_first(workdir: Path) -> None:
    write_audit(Path("run", "audit.sqlite"), 3)
    Path("run", "verify.json").write_text(json.dumps(FOUND))
    Path("run", "shadow.json").write_text(json.dumps({**FOUND, "differ": 1}))
    assert verdicts_of(Path("run"))[0].title == "Not the native solver's bits"


def test_a_replay_beside_the_audit_is_told(cli: Callable, workdir: Path) -> None:
    fields = {"max_iter": 6, "snapshot_prefix": "snap", "snapshot": 3, "random_seed": 1}
    write_solver(workdir, **fields)
    Path("run.yaml").write_text("solver: solver.prototxt\nrun_dir: run\naudit: {every: 1}\n")
    assert cli("train", "run.yaml").returncode == 0
    assert len(verdicts_of(Path("run"))) == 3
    replayed = cli("audit", "replay", "run", "--json", "run/replay.json")
    assert replayed.returncode == 0, replayed.stderr
    replay = verdicts_of(Path("run"))[2]
    assert (replay.state, replay.title) == ("good", "Trained again, it is the same")
    assert "Replay: iterations 0 to 5" in replay.text
    found = json.loads(Path("run", "replay.json").read_text())
    found["difference"] = {"iteration": 2}
    Path("run", "replay.json").write_text(json.dumps(found))
    assert verdicts_of(Path("run"))[2].state == "bad"


def test_a_changed_figure_breaks_the_ledger_where_it_was_changed(workdir: Path) -> None:
    audit = write_audit(workdir / "audit.sqlite", 30)
    _, ledger, _ = verdicts_of(audit)
    assert (ledger.state, ledger.title) == ("good", "Ledger intact")
    assert ledger.text.startswith("30 recorded updates follow each other")
    change(audit, "UPDATE figures SET zeros = zeros + 1 WHERE iteration = 17")
    _, ledger, _ = verdicts_of(audit)
    assert (ledger.state, ledger.title) == ("bad", "Ledger broken at iteration 17")
    _, ledger, _ = verdicts_of(audit, check=False)
    assert ledger.command == f"caffe-pysgd audit check {audit}"


def test_alarms_are_said_and_counted(workdir: Path) -> None:
    _, _, events = verdicts_of(write_audit(workdir / "fine.sqlite", 30))
    assert (events.state, events.text) == ("good", "Every recorded value is finite.")
    _, _, events = verdicts_of(write_audit(workdir / "nan.sqlite", 30, nonfinite_at=11))
    assert (events.state, events.title) == ("bad", "1 alarm")
    assert "iteration 12" in events.text and "conv1/0: 2 values" in events.text


def test_the_page_says_it_all(workdir: Path, opened: Callable) -> None:
    hostile = "</script><script>alert(1)</script><b>x</b>"
    parameters = [(f"{hostile}/0", (4, 3)), ("ip/0", (10,))]
    manifest = {
        "command": ["caffe-pysgd", "train", hostile],
        "net": f'name: "{hostile}"\nlayer {{}}',
    }
    sessions: Any = [
        dict(iterations=20, parameters=parameters, ended=None),
        dict(start=10, iterations=20, parameters=parameters, nonfinite_at=25, manifest=manifest),
    ]
    write_sessions(Path("run", "audit.sqlite"), sessions)
    page = opened(write_report([Path("run")])).page
    facts = page.inner_text(".facts")
    assert "30\n0 to 29, in 2 sessions" in facts.replace("\n\n", "\n")
    assert "1 alarm" in page.inner_text(".verdicts")
    record = page.inner_text("#record")
    assert "not said: killed, or running" in record
    assert "conv1/0: 2 values of the gradient are not finite" in record
    for summary in page.locator("summary").all():
        summary.click()
    assert f'"{hostile}"' in page.inner_text("#record")
    assert page.locator(f"#stripes tr[data-parameter='{hostile}/0']").count() == 1
    assert page.locator("b").get_by_text("x", exact=True).count() == 0
    assert page.get_by_role("heading", name="Non-finite values").count() == 1


def test_an_audit_without_figures_or_iterations_is_shown(workdir: Path, opened: Callable) -> None:
    write_audit(Path("a", "audit.sqlite"), 30, every=1000, start=1)
    page = opened(write_report([Path("a")])).page
    assert page.locator("#parameters").count() == 0
    assert page.locator("#training-charts canvas").count() >= 4
    write_audit(Path("b", "audit.sqlite"), 0)
    page = opened(write_report([Path("b")])).page
    assert page.locator("canvas").count() == 0
    assert "Updates recorded\n0" in page.inner_text(".facts")
