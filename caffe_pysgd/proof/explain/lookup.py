"""One weight at one iteration, found in an audit: as a probe saw it, or by training again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.audit.opening import open_audit
from caffe_pysgd.audit.store import RecordedParameter, Session, Store
from caffe_pysgd.errors import UserError, listed, nearest
from caffe_pysgd.proof.explain.derivation import takes_norms
from caffe_pysgd.proof.explain.explanation import Element
from caffe_pysgd.proof.explain.weight_watcher import WeightWatcher
from caffe_pysgd.proof.replay import compare_update
from caffe_pysgd.proof.rerun import Retraining, importing_from, surroundings
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import HyperParameters, UpdateRule, make_rule
from caffe_pysgd.update.kernel_choice import make_kernels
from caffe_pysgd.update.kernels import Kernels

F = np.float32

Progress = Callable[[int, int], None]
"""Called with how many iterations are done, and of how many."""


@dataclass(frozen=True)
class Place:
    """Where a weight is: in which session, of which parameter, at which place, in which row."""

    session: Session
    parameter: RecordedParameter
    index: Tuple[int, ...]
    element: int
    iteration: Dict[str, Any]


class Found(NamedTuple):
    """A weight's update, and whether training again was needed to have it."""

    element: Element
    trained_again: bool


def find_element(
    store: Store,
    parameter: str,
    index: Sequence[int],
    iteration: int,
    progress: Progress,
    allow_user_code: bool = False,
) -> Found:
    """Return what an audit knows of one weight's update.

    Args:
        store: the audit.
        parameter: the parameter's display name.
        index: the weight's place in it, one number for each axis, or in the flat array.
        iteration: which update.
        progress: called while the run is trained again, if that is needed.
        allow_user_code: run the modules and Python layers that a stranger's audit names.

    Raises:
        UserError: there is no such parameter, place or iteration; the parameter was not updated
            then; or no probe recorded it and the session cannot be trained again.
    """
    place = _find(store, parameter, index, iteration)
    with surroundings(store, allow_user_code):
        facts = _Facts(store, place)
        values = _probed(store, place)
        if values and not takes_norms(facts.rule, facts.h, iteration):
            return Found(facts.element(values, [], facts.kernels(), facts.norm), False)
        retraining, watcher = _train_again(store, place, progress)
        updater = retraining.solver.updater
        clip_norm = updater.clipping.l2norm_diff if updater.clipping else None
        element = facts.element(watcher.values, watcher.norms, updater.kernels, clip_norm)
        return Found(element, True)


def _find(store: Store, name: str, index: Sequence[int], iteration: int) -> Place:
    rows = list(store.rows("iterations", iteration=iteration))
    if not rows:
        raise UserError(f"{store.path}: iteration {iteration} is not recorded{_range(store)}")
    (session,) = [s for s in store.sessions() if s.session == rows[0]["session"]]
    parameters = {p.name: p for p in store.parameters(session.session)}
    if name not in parameters:
        hint = nearest(name, parameters) or f"; there are {listed(parameters)}"
        raise UserError(f"{store.path}: there is no parameter '{name}'{hint}")
    parameter = parameters[name]
    shape = parameter.shape if len(index) != 1 else (parameter.count,)
    if len(index) != len(shape) or any(not 0 <= i < axis for i, axis in zip(index, shape)):
        raise UserError(
            f"--index: found {','.join(map(str, index))}, {name} has the shape "
            f"{' x '.join(map(str, parameter.shape))}; give one number for each axis, counted "
            "from 0, or the place in the flat array"
        )
    element = int(np.ravel_multi_index(tuple(index), shape))
    whole = tuple(int(i) for i in np.unravel_index(element, parameter.shape))
    return Place(session, parameter, whole, element, rows[0])


def _range(store: Store) -> str:
    span = store.span()
    if span is None:
        return "; nothing was recorded"
    every = store.manifest().get("audit", {}).get("every", 1)
    steps = f", each {every}th" if every > 1 else ""
    return f"; there are {span[0]} to {span[1]}{steps}"


def _probed(store: Store, place: Place) -> Dict[str, np.float32]:
    """Return what a probe saw of the weight, by the board's names; nothing if there was none."""
    key = {"parameter": place.parameter.parameter, "element": place.element}
    rows = list(store.rows("probes", iteration=place.iteration["iteration"], **key))
    stages = {row["stage"]: np.array([row["bits"]], np.uint32).view(F)[0] for row in rows}
    if stages and "data" not in stages:
        raise _not_updated(store, place)
    values = {}
    for stage, value in stages.items():
        slot = stage[: -len(" before")]
        if stage.endswith(" before"):
            values["weight" if slot == "data" else slot] = value
        elif stage == "data":
            values["new weight"] = value
        else:
            values[f"new {stage}" if f"{stage} before" in stages else stage] = value
    return values


def _not_updated(store: Store, place: Place) -> UserError:
    iteration = place.iteration["iteration"]
    for event in store.rows("events", iteration=iteration):
        if event["kind"] == "skipped":
            return UserError(f"{store.path}: the update was skipped: {event['message']}")
    return UserError(
        f"{store.path}: {place.parameter.name} was not updated at iteration {iteration}: it was "
        "frozen (freeze_until, freeze_from) or the update was refused"
    )


class _Facts:
    """What the manifest and the tables say around the weight."""

    def __init__(self, store: Store, place: Place) -> None:
        self._place = place
        self._manifest = store.run_manifest(place.session.session)
        self.rule_name = place.parameter.rule
        self.common = HyperParameters(**self._manifest["hyperparameters"])
        own = {**self._manifest["hyperparameters"], **self._own()}
        self.h = HyperParameters(**own)
        key = {"iteration": place.iteration["iteration"], "parameter": place.parameter.parameter}
        self._updates = list(store.rows("updates", **key))

    def _own(self) -> Dict[str, Any]:
        """Return the hyper-parameters that the configuration's groups give this parameter."""
        groups = self._manifest["configuration"].get("update", {}).get("params", [])
        for group in groups:
            if fnmatchcase(self._place.parameter.name, group["match"]):
                names = HyperParameters.__dataclass_fields__
                own = {name: value for name, value in group.items() if name in names}
                if "lr_table" in own:
                    own["lr_table"] = [(int(i), rate) for i, rate in own["lr_table"].items()]
                return own
        return {}

    @property
    def norm(self) -> Optional[np.float32]:
        """The norm that clipping saw, if the recorded figures tell it to the bit."""
        factor, l2 = self._place.iteration["clip_factor"], self._place.iteration["gradient_l2"]
        if factor is None or not l2:
            return None
        return F(l2) if self.common.clip_gradients / F(l2) == F(factor) else None

    def kernels(self) -> Kernels:
        """Return the kernels that computed the update, or what comes nearest to them here."""
        exact = self._manifest["configuration"].get("update", {}).get("exact", True)
        for name in (self._manifest["kernels"], "auto"):
            try:
                return make_kernels(name, pycaffe.library_path(), exact)
            except UserError:
                continue
        return make_kernels("numpy", None)

    @cached_property
    def rule(self) -> UpdateRule:
        update = self._manifest["configuration"].get("update", {})
        named = {update.get("rule"), *(group.get("rule") for group in update.get("params", []))}
        if ":" in self.rule_name and self.rule_name not in named:
            # The seal is the manifest's: what else is in the file may have been changed since.
            raise UserError(f"its configuration does not name the rule '{self.rule_name}'")
        with importing_from(str(Path(self._manifest["source"]).parent)):
            return make_rule(self.rule_name)

    def element(
        self,
        values: Dict[str, np.float32],
        norms: Sequence[np.float32],
        kernels: Kernels,
        clip_norm: Optional[np.float32],
    ) -> Element:
        """Return all that there is to explain."""
        parameter, row = self._place.parameter, self._place.iteration
        return Element(
            parameter=parameter.name,
            index=self._place.index,
            element=self._place.element,
            count=parameter.count,
            iteration=row["iteration"],
            rule=self.rule,
            rule_name=self.rule_name,
            common=self.common,
            h=self.h,
            lr_mult=parameter.lr_mult,
            decay_mult=parameter.decay_mult,
            kernels=kernels,
            rate=row["rate"],
            local_rate=self._updates[0]["local_rate"] if self._updates else None,
            clip_factor=row["clip_factor"],
            clip_norm=None if clip_norm is None else float(clip_norm),
            values=values,
            norms=norms,
        )


def _train_again(
    store: Store, place: Place, progress: Progress
) -> Tuple[Retraining, WeightWatcher]:
    """Train again up to the update, and make sure that it is the one that was recorded."""
    for skip_to in (place.iteration["iteration"], 0):
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
            file = Path(directory, "again.sqlite")
            retraining = Retraining(store, place.session, skip_to, file)
            watcher = _watch(retraining, place, progress)
            with open_audit(file) as again:
                iteration = place.iteration["iteration"]
                difference = compare_update(store, place.session.session, again, iteration)
        if difference is None or retraining.skipped_to == place.session.start_iteration:
            break
    if difference:
        raise UserError(
            f"{store.path}: trained again, the run is another one: {difference}; 'caffe-pysgd "
            "audit replay' finds where they part"
        )
    if "new weight" not in watcher.values:
        raise _not_updated(store, place)
    return retraining, watcher


def _watch(retraining: Retraining, place: Place, progress: Progress) -> WeightWatcher:
    solver, iteration = retraining.solver, place.iteration["iteration"]
    watcher = WeightWatcher(solver.updater, place.parameter.parameter, place.element, iteration)
    solver.updater.observers.append(watcher)
    start, total = solver.iter, iteration + 1 - solver.iter

    def updated(now: int) -> bool:
        progress(now + 1 - start, total)
        return True

    try:
        retraining.train(iteration + 1, updated)
    finally:
        retraining.close()
    return watcher
