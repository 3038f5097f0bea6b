"""A run's snapshots: where they go, from which one it goes on, and whose it must not replace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Callable, Collection, List, Optional, Sequence

from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.files import remove_unfinished
from caffe_pysgd.run.outputs import MANIFEST
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import TRAIN_LOSS
from caffe_pysgd.run.yaml_file import is_yaml
from caffe_pysgd.stock.complete import is_complete
from caffe_pysgd.stock.hdf5_names import unfit_layer
from caffe_pysgd.stock.learnable import layer_names
from caffe_pysgd.stock.protobuf import text_format
from caffe_pysgd.stock.snapshot_names import files_of, kept_record, snapshots_of
from caffe_pysgd.stock.snapshots import SolverState


def make_snapshot_folder(run: Run) -> None:
    """Make the folder of a run's snapshots, if it takes any.

    Caffe looks before training only where ``snapshot`` is set, and else aborts after it.

    Raises:
        SettingError: it cannot be made or written to.
    """
    if not run.takes_snapshots:
        return
    prefix = run.solver.snapshot_prefix
    folder = Path(prefix).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK) else f"the folder {folder} is not writable"
    except OSError as error:
        problem = f"the folder {folder} cannot be made: {error.strerror}"
    if problem:
        raise SettingError("snapshot_prefix", prefix, problem=problem, where=run.source)


def refuse_unfit_for_hdf5(run: Run, layers: Optional[Sequence[str]] = None) -> None:
    """Check that HDF5 snapshots, where the run takes such, can hold its net.

    Args:
        run: what is going to be trained.
        layers: the names of the net's layers, Caffe's own included; it is asked if not given.

    Raises:
        SettingError: they cannot; Caffe would abort, or could not load what it wrote.
    """
    if not run.hdf5:
        return
    if layers is None:
        layers = layer_names(run.configuration.solver, run.solver, run.net, run.state)
    owned = [(p.layer, p.index) for p in run.parameters]
    shared = [(layer, index) for p in run.parameters for layer, index, _ in p.sharers]
    problem = unfit_layer(layers, owned, shared)
    if problem:
        fix = "rename it, or set snapshot_format: BINARYPROTO"
        raise SettingError("snapshot_format", "HDF5", problem=f"{problem}; {fix}", where=run.source)


def refuse_unknown_score(run: Run, outputs: Collection[str], train_loss: bool = True) -> None:
    """Check that there will be the score by which the best snapshot is kept.

    Args:
        run: what is going to be trained.
        outputs: the names of the test nets' outputs, as far as the host sees them.
        train_loss: whether the host sees the loss of the training.

    Raises:
        SettingError: no snapshot would have it, or only some.
    """
    keep, solver, where = run.settings().keep, run.solver, run.source
    if not keep or not keep.best:
        return
    names = [*sorted(set(outputs)), *([TRAIN_LOSS] if train_loss else [])]
    if keep.best not in names:
        allowed = one_of(names, keep.best) if names else "a test net"
        raise SettingError("snapshots.keep_best", keep.best, allowed, where=where)
    every, tested = solver.snapshot, solver.test_interval
    if keep.best != TRAIN_LOSS and every and (not tested or every % tested):
        problem = f"not every snapshot is tested: snapshot must be a multiple of {tested}"
        raise SettingError("snapshot", every, problem=f"{problem} (test_interval)", where=where)


def chosen_snapshot(
    run: Run,
    named: Optional[str],
    check: Callable[[Path, Run], SolverState],
    say: Callable[[str], object],
) -> Optional[str]:
    """Return the solver state that a user names; for ``auto``, from which a killed run goes on.

    That is the newest complete one, or None. Caffe writes its snapshots in place, so one that was
    being written is torn; a model may be gone, or be another net's.

    Args:
        run: whose ``snapshot_prefix`` is looked at, and the one that its manifest names.
        named: what the user gave.
        check: says whether the run can resume from a solver state.
        say: told which it is, and of each newer one that was passed over.

    Raises:
        UserError: the run would replace the snapshots of an earlier one.
    """
    chosen = _newest(run, check, say) if named == "auto" else named
    refuse_others(run, chosen)
    return chosen


def _newest(
    run: Run, check: Callable[[Path, Run], SolverState], say: Callable[[str], object]
) -> Optional[str]:
    prefix = run.solver.snapshot_prefix
    for path in snapshots_of(prefix) or snapshots_of(_earlier_prefix(run)):
        try:
            if ".caffemodel" in path.name:
                raise UserError(f"{path}: has no solver state beside it")
            state = check(path, run)
        except UserError as error:
            say(f"caffe-pysgd: passed over: {error}")
            continue
        say(f"caffe-pysgd: resuming from {path}, at iteration {state.iteration}")
        return str(path)
    say(f"caffe-pysgd: no complete snapshot {prefix}_iter_*: starting at iteration 0")
    return None


def _earlier_prefix(run: Run) -> str:
    """Return where the manifest in the run's folder says that its snapshots went.

    Before a YAML's run had its own, they went where the solver file says.
    """
    solver = type(run.solver)()
    try:
        stated = json.loads((run.directory / MANIFEST).read_text(encoding="utf-8"))
        if stated["source"] == str(run.source):
            text_format.Parse(stated["solver"], solver)
    except Exception:  # anything may stand in a stranger's manifest
        pass  # nothing is known of an earlier one
    return str(solver.snapshot_prefix) or str(run.solver.snapshot_prefix)


def refuse_others(run: Run, going_on_from: Optional[str]) -> None:
    """Check that a YAML's run replaces no snapshots but those that it goes on from.

    A bare solver file does as Caffe does, which replaces them.

    Raises:
        UserError: there are some; with the fix.
    """
    if run.configuration.snapshots.overwrite:
        return
    others = [path for path in _others(run, going_on_from) if is_complete(path)]
    if others:
        raise UserError(
            f"{run.source}: {others[0]} is of an earlier run, whose snapshots this one would "
            "replace; go on from them (--snapshot auto), replace them (--overwrite, or "
            "snapshots.overwrite), or give another snapshots.prefix or run_dir"
        )


def discard_others(run: Run, going_on_from: Optional[str]) -> None:
    """Remove the snapshots that ``overwrite`` gives up.

    All at once: those of later iterations would else be taken for this run's own.
    """
    others = _others(run, going_on_from) if run.configuration.snapshots.overwrite else []
    for path in others:
        path.unlink()
    if others:
        kept_record(run.solver.snapshot_prefix).unlink(missing_ok=True)


def clear_prefix(run: Run, going_on_from: Optional[str]) -> None:
    """Remove what must not stay where a YAML's run is going to write; its folder is locked."""
    if is_yaml(run.source):
        prefix = Path(run.solver.snapshot_prefix)
        remove_unfinished(prefix.parent, f"{prefix.name}_iter_")
    discard_others(run, going_on_from)


def _others(run: Run, going_on_from: Optional[str]) -> List[Path]:
    """Return the files with a YAML's prefix, the newest first, if the run goes not on from them."""
    if not run.takes_snapshots or not is_yaml(run.source):
        return []
    there = files_of(run.solver.snapshot_prefix)
    if going_on_from and Path(going_on_from).resolve() in {path.resolve() for path in there}:
        return []
    return sorted(there, key=lambda path: (there[path], path.name), reverse=True)


class Claim:
    """The right of a solver in Python to write under its prefix, claimed before it trains."""

    def __init__(self, run: Run) -> None:
        self._run, self._claimed = run, False

    def take(self, going_on_from: Optional[str] = None) -> None:
        """Claim it, once.

        Raises:
            UserError: there are the snapshots of an earlier run.
        """
        if self._claimed:
            return
        refuse_others(self._run, going_on_from)
        discard_others(self._run, going_on_from)
        self._claimed = True
