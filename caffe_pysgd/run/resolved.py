"""A resolved run as a YAML that trains it again: nothing is left to a default or another file.

Only the solver file and the net stay where they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict

import yaml

from caffe_pysgd.files import write_files
from caffe_pysgd.run.configuration import UpdateOptions
from caffe_pysgd.run.outputs import ORIGIN, RESOLVED
from caffe_pysgd.run.run import Run


def write_resolved(run: Run, directory: Path) -> None:
    """Write the run's resolved configuration into its folder.

    Raises:
        UserError: the file cannot be written.
    """
    text = yaml.safe_dump(resolved(run, directory), sort_keys=False, allow_unicode=True)
    comment = f"{ORIGIN} from {run.source}: what it comes to, defaults included.\n"
    write_files({directory / RESOLVED: comment + text})


def resolved(run: Run, directory: Path) -> Dict[str, Any]:
    """Return everything that decides the run, as a YAML in that folder says it."""
    configuration, h = run.configuration, run.h.as_plain()
    h["lr_table"] = dict(h["lr_table"])  # type: ignore[call-overload]
    update: Dict[str, Any] = {"rule": run.rule}
    for name in UpdateOptions.model_fields:
        if name in h:
            # Empty, it is no value of the key's: what is not given is empty, too.
            update.update({name: h[name]} if h[name] not in ("", {}) else {})
        elif name not in ("rule", "params"):
            update[name] = getattr(run.update, name)
    update["on_nonfinite"] = configuration.on_nonfinite or "ignore"
    update["params"] = [
        group.model_dump(mode="json", exclude_none=True) for group in run.update.params
    ]
    content: Dict[str, Any] = {
        "solver": seen_from(directory, configuration.solver),
        "run_dir": ".",
        "module_path": seen_from(directory, configuration.module_path or run.source.parent),
        "solver_overrides": dict(configuration.solver_overrides),
        "update": update,
    }
    others = configuration.model_dump(
        mode="json",
        exclude_none=True,
        exclude={"snapshots": {"overwrite"}},  # a permission, for that one time
    )
    if configuration.snapshots.prefix is not None:
        others["snapshots"]["prefix"] = seen_from(directory, Path(run.solver.snapshot_prefix))
    return {**content, **{name: value for name, value in others.items() if name not in _HERE}}


_HERE = ("base", "solver", "run_dir", "module_path", "solver_overrides", "update")


def seen_from(directory: Path, path: Path) -> str:
    """Return a path as it is seen from a folder; an absolute one stays."""
    return str(path) if path.is_absolute() else os.path.relpath(path, directory)
