"""What is recorded of a run: from its configuration to the recorder's settings and manifest."""

from __future__ import annotations

import math
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
        histograms=options.histograms if options else 0,
        probes=_probes(run, options),
        weights_every=solver.snapshot if weights_every is None else weights_every,
        max_iter=solver.max_iter,
        average_loss=solver.average_loss,
        snapshot_prefix=solver.snapshot_prefix,
        hdf5=run.hdf5,
    )


def write_manifest(run: Run, audit: Optional[AuditSettings]) -> None:
    """Write down what is known of a run, for a recorder in another process.

    Raises:
        UserError: it cannot be written.
    """
    if audit is not None:
        write_json(Path(audit.manifest), statement(run))


def statement(run: Run) -> Dict[str, Any]:
    """Return what is known of a run before it starts."""
    return {
        "source": str(run.source),
        "configuration": run.configuration.model_dump(mode="json", exclude_none=True),
        "rule": run.rule,
        "hyperparameters": run.h.as_plain(),
        "solver": to_text(run.solver),
        "net": to_text(run.net),
        "train_state": to_text(run.state),
        "random_seed": run.solver.random_seed,
        "start": {"snapshot": run.snapshot, "weights": list(run.solver.weights)},
        **manifest.command(),
    }


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
