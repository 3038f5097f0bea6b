"""A recorded session, trained again: the same nets, data, random numbers and updates.

It begins where the session began, because Caffe keeps neither its place in the data nor its random
numbers in a snapshot: after any resume both begin anew. A snapshot that was taken on the way saves
the updates before it, but not their forward passes, which are what brings data and random numbers
to the same place.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional

import yaml

from caffe_pysgd.audit.ledger import array_hash
from caffe_pysgd.audit.seal import made_here
from caffe_pysgd.audit.store import Session, Store
from caffe_pysgd.errors import UserError
from caffe_pysgd.files import file_hash
from caffe_pysgd.hosts.in_net.convert import is_in_net
from caffe_pysgd.hosts.snapshot_writer import adopt_state
from caffe_pysgd.hosts.solver import Action, Solver
from caffe_pysgd.run.outputs import NET, SOLVER
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.run.run import Run
from caffe_pysgd.run.settings import (
    FIRST_STATE_BLOB,
    HEADER_BLOB,
    AuditSettings,
    reaction_of,
    unpack_header,
)
from caffe_pysgd.run.start import check_native_snapshot, check_snapshot
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protobuf import text_format
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.prototxt import to_text
from caffe_pysgd.stock.snapshots import SolverState, read_model
from caffe_pysgd.stock.solver_file import replace_train_net
from caffe_pysgd.stock.writers import include_test_nets, opened_to_write, silence_writers
from caffe_pysgd.update import HyperParameters
from caffe_pysgd.user_code import no_user_code, why_no_user_code

ALLOW = "--allow-user-code"


class Start(NamedTuple):
    """With which solver state, or which models, a command began a session."""

    snapshot: str
    weights: List[str]

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Start:
        """Return what a manifest says of it; in those of before it did, the command does."""
        if "start" in manifest:
            return cls(**manifest["start"])
        flags: Dict[str, str] = {}
        command = manifest.get("command", [])
        for argument, following in zip(command, [*command[1:], ""]):
            name, equals, value = argument.partition("=")
            flags.setdefault(name, value if equals else following)
        models = flags.get("--weights", "").split(",")
        return cls(flags.get("--snapshot", ""), [m.strip() for m in models if m.strip()])


class Retraining:
    """One session, about to be trained again by the drop-in solver; it writes no files.

    To be made and used in the run's :func:`surroundings`.

    Args:
        store: the audit.
        session: which of its sessions.
        skip_to: an iteration before which no update needs to be done again; the session's latest
            recorded snapshot up to there is gone on from, if its files are as they were.
        record_to: where to record what the session recorded; not at all if not given.

    Attributes:
        run: what is trained.
        solver: at the session's start, or at that snapshot.
        skipped_to: the iteration of the snapshot; the session's start without one.

    Raises:
        UserError: it cannot be trained again, and why.
    """

    def __init__(
        self,
        store: Store,
        session: Session,
        skip_to: int = 0,
        record_to: Optional[Path] = None,
    ) -> None:
        self._store, self._session = store, session
        self._manifest = store.run_manifest(session.session)
        self._start = Start.of(self._manifest)
        self._refuse_chance()
        start = self._start_snapshot()
        self.run = self._resolved()
        self.solver = Solver(self.run, self._audit(record_to) if record_to else None)
        if start:
            self._adopt(read_state(start, self.run))
        self._check_initial_weights()
        self.skipped_to = session.start_iteration
        on_the_way = self._latest_snapshot(skip_to)
        if on_the_way:
            self._pass_over(on_the_way)

    def _refuse_chance(self) -> None:
        seeded = self._manifest["random_seed"] >= 0
        if not seeded and not self._session.start_iteration and not self._start.weights:
            raise UserError(
                f"{self._store.path}: cannot be trained again: session {self._session.session} "
                "began with random weights and the solver file has no random_seed"
            )

    def train(self, stop: int, updated: Callable[[int], bool]) -> None:
        """Train up to an iteration.

        Args:
            stop: the iteration.
            updated: called after each update with its iteration; returns whether to go on.
        """
        done = self.solver.iter

        def requested_action() -> Action:
            nonlocal done
            if self.solver.iter == done:  # asked between two batches of a test
                return Action.NONE
            done = self.solver.iter
            return Action.NONE if updated(done - 1) else Action.STOP

        self.solver.set_action_function(requested_action)
        try:
            self.solver.step(stop - self.solver.iter)
        except UserError:
            if self.solver.iter < stop:
                raise  # at the last one, a gradient that is not finite ended the session, too

    def close(self) -> None:
        """End the record of it, if there is one."""
        self.solver.close()

    # -- the run ----------------------------------------------------------------------------------

    def _resolved(self) -> Run:
        """Return the run that the manifest describes."""
        manifest, messages = self._manifest, pycaffe.messages()
        solver = self._parsed("solver", messages.SolverParameter())
        state = self._parsed("train_state", messages.NetState())
        net = self._parsed("net", messages.NetParameter())
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as name:
            directory = Path(name)
            include_test_nets(solver)
            for one in (net, *solver.test_net_param):
                silence_writers(one)
            self._refuse_writing(net, *solver.test_net_param)
            (directory / NET).write_text(to_text(net), encoding="utf-8")
            replace_train_net(solver, directory / NET)
            solver.train_state.CopyFrom(state)
            if self._start.weights:
                del solver.weights[:]
                solver.weights.extend(self._start.weights)
            solver.snapshot, solver.snapshot_after_train, solver.display = 0, False, 0
            (directory / SOLVER).write_text(to_text(solver), encoding="utf-8")
            configuration = {"solver": SOLVER, "update": self._update_options()}
            path = directory / "run.yaml"
            path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
            beside = str(Path(manifest["source"]).parent)
            module_path = manifest["configuration"].get("module_path", beside)
            try:
                with importing_from(module_path):
                    run = resolve(path, level=None)
            except UserError as error:
                reason = str(error).replace(f"{directory}/", "its ")
                raise UserError(f"{self._store.path}: cannot be trained again: {reason}") from error
        return replace(run, source=Path(manifest["source"]))

    def _parsed(self, key: str, empty: Any) -> Any:
        try:
            return text_format.Parse(self._manifest[key], empty)
        except text_format.ParseError as error:
            problem = str(error).splitlines()[0][:200]
            raise UserError(f"{self._store.path}: its {key} cannot be read: {problem}") from error

    def _refuse_writing(self, *nets: Any) -> None:
        why, layer = why_no_user_code(), opened_to_write(nets)
        if why and layer:
            raise UserError(
                f"{self._store.path}: cannot be trained again: its layer '{layer}' reads LevelDB, "
                f"which writes into the folder of its data: {why}"
            )

    def _update_options(self) -> Dict[str, Any]:
        """Return what the solver file cannot say of the update."""
        given = dict(self._manifest["configuration"].get("update", {}))
        reaction = self._manifest.get("on_nonfinite", reaction_of(self._manifest["audit"]))
        given["on_nonfinite"] = reaction or "ignore"
        in_solver = set(HyperParameters.__dataclass_fields__) - set(HyperParameters.beyond_caffe())
        return {name: value for name, value in given.items() if name not in in_solver}

    def _audit(self, file: Path) -> AuditSettings:
        """Return what the session recorded, into another file."""
        return AuditSettings.from_plain(
            {**self._manifest["audit"], "file": str(file), "manifest": ""}
        )

    # -- where it begins --------------------------------------------------------------------------

    def _start_snapshot(self) -> Optional[Path]:
        """Return the solver state that the session began with, or None.

        Raises:
            UserError: it is not known, gone, or not as it was.
        """
        start = self._session.start_iteration
        if start == 0:
            return None
        recorded = self._recorded_states(start)
        given = self._start.snapshot
        for path in recorded:
            if path == Path(given) or not given:
                self._check_unchanged(start)
                return path
        if given and Path(given).exists():
            return Path(given)
        what = given or f"a snapshot of iteration {start}, which the audit does not name"
        raise UserError(
            f"{self._store.path}: cannot be trained again: session {self._session.session} went "
            f"on from {what}{', which is not there' if given else ''}"
        )

    def _recorded_states(self, iteration: int) -> List[Path]:
        rows = self._store.rows("snapshots", iteration=iteration)
        return [Path(row["path"]) for row in rows if ".solverstate" in row["path"]]

    def _check_unchanged(self, iteration: int) -> None:
        for row in self._store.rows("snapshots", iteration=iteration):
            path = Path(row["path"])
            found = file_hash(path) if path.exists() else ""
            if row["sha256"] and found != row["sha256"]:
                what = f"has changed since: its SHA-256 is {found}, {row['sha256']} was recorded"
                raise UserError(f"{path}: {what if found else 'is not there'}")

    def _check_initial_weights(self) -> None:
        """Check that the weights are those that the session began with.

        That was recorded after the first forward pass, which changes BatchNorm's statistics.
        """
        recorded = self._manifest["initial_weights"]["parameters"]
        for blob, parameter in zip(self.run.parameters, self.solver.updater.parameters):
            if not blob.statistic and recorded.get(blob.name) != array_hash(parameter.data):
                raise UserError(
                    f"{self._store.path}: cannot be trained again: {blob.name} does not start from "
                    f"the weights that session {self._session.session} began with; give the same "
                    "snapshot, weights file or build of Caffe"
                )

    # -- a snapshot on the way --------------------------------------------------------------------

    def _latest_snapshot(self, upto: int) -> Optional[Path]:
        """Return the session's last solver state up to an iteration that is still as it was."""
        rows = self._store.rows("snapshots", self._session.session)
        taken = {row["iteration"] for row in rows}
        start = self._session.start_iteration
        for iteration in sorted((i for i in taken if start < i <= upto), reverse=True):
            states = self._recorded_states(iteration)
            try:
                self._check_unchanged(iteration)
            except UserError:
                continue  # an earlier one serves as well, and the start always does
            if states:
                return states[0]
        return None

    def _pass_over(self, path: Path) -> None:
        """Bring data and random numbers to where they were at a snapshot, and go on from it."""
        solver, state = self.solver, read_state(path, self.run)
        for iteration in range(solver.iter, state.iteration):
            if _tests_at(solver.param, iteration):
                for net, batches in zip(solver.test_nets, solver.param.test_iter):
                    net.share_with(solver.net)
                    for _ in range(batches):
                        _forward(net)
            for _ in range(solver.param.iter_size):
                _forward(solver.net)
        self._adopt(state)
        self.skipped_to = state.iteration

    def _adopt(self, state: SolverState) -> None:
        self.solver.net.copy_from(str(state.learned_net))
        self.solver.iter = state.iteration
        adopt_state(self.run, self.solver.updater, state)


def read_state(path: Path, run: Run) -> SolverState:
    """Return what the solver state of a run holds, whichever host took it.

    Raises:
        UserError: it is no solver state of this run.
    """
    if not is_in_net(path):
        return check_native_snapshot(path, run)
    state = check_snapshot(path, run)
    hook = read_model(state.learned_net)[run.settings().hook_name]
    iteration, current_step, seen = unpack_header(hook[HEADER_BLOB])
    return replace(
        state,
        iteration=iteration,
        current_step=current_step,
        history=hook[FIRST_STATE_BLOB:],
        minimum_loss=seen.minimum_loss,
        iter_last_event=seen.iter_last_event,
    )


def _tests_at(param: Any, iteration: int) -> bool:
    due = bool(param.test_interval) and iteration % param.test_interval == 0
    return due and (iteration > 0 or param.test_initialization)


def _forward(net: Net) -> None:
    net._forward(0, len(net.layers) - 1)


@contextmanager
def surroundings(store: Store, allow_user_code: bool = False) -> Iterator[None]:
    """Be where a run was, and let its own modules be imported, if the user recorded it here.

    Else it is a stranger's: then nothing is taken from the folder that it names, no module that it
    names is imported, and no layer in Python is built, unless that is allowed.
    """
    manifests = [store.manifest(session.session) for session in store.sessions()]
    if not allow_user_code and not all(map(made_here, manifests)):
        with no_user_code(f"{store.path} was not recorded here by you; {ALLOW} runs it"):
            yield
        return
    here, there = os.getcwd(), store.manifest().get("working_directory", "")
    if os.path.isdir(there):
        os.chdir(there)
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def importing_from(directory: str) -> Iterator[None]:
    """Let the modules of the user's own be found beside the YAML that named them, if they may."""
    if why_no_user_code():
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)
