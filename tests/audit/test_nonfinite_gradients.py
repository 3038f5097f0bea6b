"""Gradients that are not finite, in a recorded run: told, skipped or recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import caffe
import numpy as np
import pytest
from helpers.hosts import HOSTS, train
from helpers.nets import EXPLODING
from helpers.recorded_runs import rows, write_recorded

import caffe_pysgd
from caffe_pysgd.audit.check import check_ledger


def first_bad(workdir: Path) -> tuple:
    """Return parameter, iteration and count, as a native solver shows them."""
    solver = caffe.SGDSolver("run.prototxt")
    found = []

    def look() -> None:
        for name, blobs in solver.net.params.items():
            for index, blob in enumerate(blobs):
                bad = int((~np.isfinite(blob.diff)).sum())
                if bad and not found:
                    found.append((f"{name}/{index}", solver.iter, bad, blob.diff.size))

    solver.add_callback(lambda: None, look)
    solver.step(12)
    return found[0]


@pytest.mark.parametrize("every", [1, 50])
@pytest.mark.parametrize("host", HOSTS)
def test_a_gradient_that_is_not_finite_stops_training_with_a_sentence(
    cli: Callable, workdir: Path, host: str, every: int
) -> None:
    source = write_recorded(workdir, f"{{every: {every}}}", **EXPLODING)
    name, iteration, bad, size = first_bad(workdir)
    values = f"{size} value{'s' * (size > 1)}"
    sentence = f"{name}: {bad} of {values} of the gradient at iteration {iteration} "
    said = train(cli, source, host)
    assert said.startswith(sentence), said
    assert "training stops here" in said
    file = workdir / "run/audit.sqlite"
    found = check_ledger(file)
    assert (found.intact, found.last_iteration) == (True, iteration)
    assert found.iterations == (iteration + 1 if every == 1 else 2)
    kinds = rows(file, "SELECT iteration, kind, message FROM events")
    assert kinds[0][:2] == (iteration, "nonfinite")
    assert kinds[0][2].startswith(sentence)


def test_skip_leaves_weights_and_history_as_they_are(workdir: Path) -> None:
    source = write_recorded(workdir, "{on_nonfinite: skip}", **EXPLODING)
    _, iteration, _, _ = first_bad(workdir)
    solver = caffe_pysgd.get_solver(source)
    solver.step(iteration)
    before = [p.data.copy() for p in solver.updater.parameters]
    solver.step(3)
    assert solver.iter == iteration + 3
    for parameter, data in zip(solver.updater.parameters, before):
        assert parameter.data.tobytes() == data.tobytes()
    solver.close()
    file = workdir / "run/audit.sqlite"
    assert check_ledger(file).iterations == iteration + 3
    sql = "SELECT DISTINCT iteration, kind FROM events"
    assert rows(file, sql) == [(iteration + n, "skipped") for n in range(3)]
    assert rows(file, "SELECT max(iteration) FROM figures") == [(iteration - 1,)]


def test_record_goes_on_as_caffe_does(workdir: Path) -> None:
    source = write_recorded(workdir, "{on_nonfinite: record}", **EXPLODING)
    name, iteration, bad, _ = first_bad(workdir)
    solver = caffe_pysgd.get_solver(source)
    solver.solve()
    solver.close()
    file = workdir / "run/audit.sqlite"
    assert check_ledger(file).iterations == 12
    kinds = rows(file, "SELECT DISTINCT kind FROM events")
    assert kinds == [("nonfinite",)]
    sql = (
        "SELECT nonfinite FROM figures JOIN parameters USING (session, parameter)"
        " WHERE name = ? AND iteration = ? AND quantity = 'gradient'"
    )
    assert rows(file, sql, name, iteration) == [(bad,)]
