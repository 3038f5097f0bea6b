"""What is recorded of a run: from its configuration to the recorder's settings and manifest."""

from __future__ import annotations

import math
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from caffe_pysgd.audit import manifest
from caffe_pysgd.audit.lock import refuse_if_locked
from caffe_pysgd.audit.store import DEFAULT_NAME
from caffe_pysgd.errors import SettingError, one_of
from caffe_pysgd.files import write_json
from caffe_pysgd.run.configuration import AuditOptions, ProbeOptions
from caffe_pysgd.run.outputs import MANIFEST, inside
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import AuditSettings
from caffe_pysgd.stock.prototxt import to_text

_WORTH_SAYING, _LARGE, _THIN_AFTER = 100_000_000, 1_000_000_000, 2000

# Bytes of a row in the file, with its part of SQLite's pages; measured on large audits.
_ITERATION, _FIGURES, _UPDATE, _HISTOGRAM, _HASH = 330, 63, 34, 260, 90


def plan_audit(run: Run, directory: Path, always: bool = False) -> Optional[AuditSettings]:
    """Return what is to be recorded of a run; None for nothing.

    Args:
        run: what is going to be trained.
        directory: the run directory.
        always: also where the configuration does not ask for an audit: then the manifest, the loss,
            and the hashes of the weights at the interval of the snapshots.

    Raises:
        UserError: a probe names no element there is, or another process is recording into the file.
    """
    options = run.configuration.audit
    if options is None and not always:
        return None
    name = options.file if options else DEFAULT_NAME
    file = inside(directory, "audit.file", name, run.source)
    refuse_if_locked(file)
    solver = run.solver
    weights_every = options.weights_every if options else None
    return AuditSettings(
        file=str(file),
        manifest=str(directory / MANIFEST),
        every=options.every if options else 0,
        thin_after=options.thin_after if options else 0,
        quantities=_quantities(run, options),
        parameters=_chosen(run, options),
        histograms=options.histograms if options else 0,
        probes=_probes(run, options),
        weights_every=solver.snapshot if weights_every is None else weights_every,
        max_iter=solver.max_iter,
        average_loss=solver.average_loss,
        snapshot_prefix=solver.snapshot_prefix,
        hdf5=run.hdf5,
    )


def estimated_size(run: Run, audit: AuditSettings) -> int:
    """Return how many bytes the audit of a run takes, about, from the first iteration to the last.

    Probes, tests and events are too few to count.
    """
    parameters = len(audit.parameters or run.parameters)
    arrays = len(audit.quantities) or 4 + max(len(p.slots) for p in run.settings().parameters)
    iterations = range(audit.max_iter)
    figures = recorded_iterations(audit)
    rows = audit.max_iter if not audit.every else figures
    histograms = len(iterations[:: audit.histograms]) if audit.histograms else 0
    hashes = len(iterations[:: audit.weights_every]) if audit.weights_every else 1
    return (
        rows * _ITERATION
        + figures * parameters * (arrays * _FIGURES + _UPDATE)
        + histograms * parameters * min(3, arrays) * _HISTOGRAM
        + hashes * len(run.parameters) * _HASH
    )


def size_warning(run: Run, audit: Optional[AuditSettings]) -> str:
    """Return how large a record is going to be, and what keeps it smaller; empty if it is small."""
    size = estimated_size(run, audit) if audit else 0
    if audit is None or size < _WORTH_SAYING:
        return ""
    said = (
        f"the audit takes about {_readable(size)}: statistics at "
        f"{recorded_iterations(audit):,} of {audit.max_iter:,} iterations"
    )
    if size < _LARGE or audit.thin_after:
        return said
    after = _THIN_AFTER * audit.every
    smaller = estimated_size(run, replace(audit, thin_after=after))
    return f"{said}; with audit.thin_after: {after}, {_readable(smaller)}"


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def recorded_iterations(audit: AuditSettings) -> int:
    """Return at how many iterations of the run the figures are recorded."""
    if not audit.every:
        return 0
    count = at = 0
    while at < audit.max_iter:
        every = audit.every_at(at)
        # Up to where the next ones are left out, or to the end.
        end = audit.max_iter
        if audit.thin_after:
            end = min(end, audit.thin_after << (at // audit.thin_after).bit_length())
        count += -(-end // every) - -(-at // every)
        at = end
    return count


def write_manifest(run: Run, audit: Optional[AuditSettings], host: str) -> None:
    """Write down what is known of a run, for people and for a recorder in another process.

    Raises:
        UserError: it cannot be written.
    """
    if audit is not None:
        known = {**statement(run), "host": host, **manifest.surroundings()}
        write_json(Path(audit.manifest), known)


def statement(run: Run) -> Dict[str, Any]:
    """Return what is known of a run before it starts."""
    return {
        "source": str(run.source),
        "configuration": run.configuration.model_dump(mode="json", exclude_none=True),
        "rule": run.rule,
        "beyond_caffe": run.beyond_caffe(),
        "hyperparameters": run.h.as_plain(),
        "solver": to_text(run.solver),
        "net": to_text(run.net),
        "train_state": to_text(run.state),
        "random_seed": run.solver.random_seed,
        "start": {"snapshot": run.snapshot, "weights": list(run.solver.weights)},
        **manifest.command(),
    }


def _quantities(run: Run, options: Optional[AuditOptions]) -> Tuple[str, ...]:
    slots = {slot: None for p in run.settings().parameters for slot in p.slots}
    allowed = ["gradient", "regularized", *slots, "update", "data"]
    for quantity in options.quantities if options else ():
        if quantity not in allowed:
            said = one_of(allowed, quantity)
            raise SettingError("audit.quantities", quantity, said, where=run.source)
    return tuple(options.quantities) if options else ()


def _chosen(run: Run, options: Optional[AuditOptions]) -> Tuple[int, ...]:
    names = [p.name for p in run.parameters]
    chosen: List[int] = []
    for pattern in options.params if options else ():
        found = [number for number, name in enumerate(names) if fnmatchcase(name, pattern)]
        if not found:
            allowed = f"a pattern that fits {one_of(names, pattern)}"
            raise SettingError("audit.params", pattern, allowed, where=run.source)
        chosen += found
    return tuple(sorted(set(chosen)))


def _probes(run: Run, options: Optional[AuditOptions]) -> Tuple[Tuple[int, int], ...]:
    probes = options.probes if options else []
    return tuple(_probe(run, number, probe) for number, probe in enumerate(probes))


def _probe(run: Run, number: int, probe: ProbeOptions) -> Tuple[int, int]:
    key = f"audit.probes[{number}]"
    names = [p.name for p in run.parameters]
    if probe.param not in names:
        allowed = one_of(names, probe.param)
        raise SettingError(f"{key}.param", probe.param, allowed, where=run.source)
    shape = run.parameters[names.index(probe.param)].shape
    index: List[int] = probe.index
    if len(index) == 1 and index[0] < math.prod(shape):
        return names.index(probe.param), index[0]
    if len(index) != len(shape) or any(i >= axis for i, axis in zip(index, shape)):
        allowed = (
            f"one number for each axis of {probe.param}, counted from 0, within its shape "
            f"{list(shape)}; or the place in the flat array"
        )
        raise SettingError(f"{key}.index", index, allowed, where=run.source)
    return names.index(probe.param), int(np.ravel_multi_index(tuple(index), shape))
