"""How much is recorded: ever fewer iterations, chosen arrays and parameters; and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from helpers.failures import refusal
from helpers.hosts import HOSTS
from helpers.recorded_runs import record, record_iterations, rows, write_recorded

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger
from caffe_pysgd.audit.plan import (
    estimated_size,
    plan_audit,
    recorded_iterations,
    size_warning,
)
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.settings import AuditSettings


def planned(source: Path) -> Any:
    run = resolve(source)
    audit = plan_audit(run, source.parent / "run")
    assert audit
    return run, audit


@pytest.mark.parametrize("host", HOSTS)
def test_after_a_while_ever_fewer_iterations_are_recorded(
    cli: Callable, workdir: Path, host: str
) -> None:
    source = write_recorded(workdir, "{thin_after: 4, weights_every: 0}", max_iter=35)
    file = record(cli, source, host)
    recorded = [at for (at,) in rows(file, "SELECT DISTINCT iteration FROM figures")]
    assert recorded == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    iterations = [at for (at,) in rows(file, "SELECT iteration FROM iterations")]
    assert iterations == [*recorded, 34]  # at the last one the weights are hashed
    assert check_ledger(file).intact
    assert recorded_iterations(planned(source)[1]) == len(recorded)


def test_a_thinned_record_is_confirmed_by_training_again(cli: Callable, workdir: Path) -> None:
    audit = "{thin_after: 3, quantities: [gradient], params: ['conv/*']}"
    source = write_recorded(workdir, audit, max_iter=14, random_seed=1)
    file = record(cli, source, "in-net")
    replayed = cli("audit", "replay", str(file))
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("thin_after", [0, 1, 7, 50])
@pytest.mark.parametrize("iterations", [1, 8, 100, 1000])
def test_the_count_is_that_of_the_iterations_that_are_due(
    every: int, thin_after: int, iterations: int
) -> None:
    audit = AuditSettings(
        file="", manifest="", every=every, histograms=0, probes=(), weights_every=0,
        max_iter=iterations, average_loss=1, snapshot_prefix="", hdf5=False,
        thin_after=thin_after,
    )  # fmt: skip
    assert recorded_iterations(audit) == sum(map(audit.is_due, range(iterations)))


def test_arrays_and_parameters_can_be_chosen(workdir: Path) -> None:
    audit = "{quantities: [update, data], params: ['conv/*', out/0], histograms: 2}"
    source = write_recorded(workdir, audit)
    record_iterations(source, 3)
    file = workdir / "run" / "audit.sqlite"
    found = rows(
        file,
        "SELECT DISTINCT p.name, f.quantity FROM figures f JOIN parameters p USING"
        " (session, parameter) ORDER BY p.parameter, f.quantity",
    )
    names = ("conv/0", "conv/1", "out/0")
    assert found == [(name, quantity) for name in names for quantity in ("data", "update")]
    assert rows(file, "SELECT count(*) FROM updates") == [(9,)]
    assert rows(file, "SELECT DISTINCT quantity FROM histograms ORDER BY 1") == [
        ("data",), ("update",),
    ]  # fmt: skip
    # The norm is of all of them, as it is without a choice.
    whole = write_recorded(workdir, "{}", name="whole")
    record_iterations(whole, 3)
    sql = "SELECT gradient_l2 FROM iterations ORDER BY iteration"
    assert rows(file, sql) == rows(workdir / "whole" / "audit.sqlite", sql)
    assert check_ledger(file).intact


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        (
            "{quantities: [gradeint]}",
            "audit.quantities: got 'gradeint'; expected one of gradient, ",
        ),
        (
            "{params: ['conf*']}",
            "audit.params: got 'conf*'; expected a pattern that fits one of conv/0",
        ),
        ("{thin_after: -1}", "audit.thin_after: got -1"),
    ],
)
def test_what_cannot_be_chosen_is_told_in_one_line(workdir: Path, audit: str, said: str) -> None:
    assert said in refusal(caffe_pysgd.get_solver, write_recorded(workdir, audit))


@pytest.mark.parametrize("audit", ["{}", "{histograms: 1}", "{quantities: [data]}"])
def test_the_estimate_is_near_the_size(workdir: Path, audit: str) -> None:
    source = write_recorded(workdir, audit, max_iter=400)
    record_iterations(source, 400)
    size = (workdir / "run" / "audit.sqlite").stat().st_size
    assert estimated_size(*planned(source)) == pytest.approx(size, rel=0.3)


def test_a_large_record_is_announced_with_what_keeps_it_small(workdir: Path) -> None:
    small = write_recorded(workdir, "{}", max_iter=100)
    assert size_warning(*planned(small)) == ""
    large = write_recorded(workdir, "{}", max_iter=1_000_000)
    said = size_warning(*planned(large))
    assert said.startswith("the audit takes about 2.1 GB: ")
    assert "at 1,000,000 of 1,000,000 iterations; with audit.thin_after: 2000, 23 MB" in said
    thinned = write_recorded(workdir, "{thin_after: 2000}", max_iter=1_000_000)
    assert size_warning(*planned(thinned)) == ""
