"""What the layers of a solver's nets hold, as Caffe builds them in a process of its own.

What they hold is kept: it is asked again once a net, a file from which a layer takes its shape, or
Caffe is another. Where a layer may read what nobody knows of, as one in Python, nothing is kept.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional

from caffe_pysgd.errors import UserError
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.answers import Question
from caffe_pysgd.stock.files_read import files_read
from caffe_pysgd.stock.helper import run_in_copy, run_with_caffe, run_with_path
from caffe_pysgd.stock.net_file import read_net
from caffe_pysgd.stock.protocols import Net
from caffe_pysgd.stock.prototxt import to_text
from caffe_pysgd.stock.solver_file import TRAIN_NET_FIELDS
from caffe_pysgd.stock.this_caffe import identity
from caffe_pysgd.stock.writers import silence_writers

# What a solver says of the loop and of the update, neither of which is run.
_NO_MATTER = (
    "base_lr display max_iter gamma power momentum momentum2 delta rms_decay weight_decay "
    "regularization_type stepsize stepvalue clip_gradients random_seed snapshot_prefix "
    "snapshot_diff snapshot_format snapshot_after_train"
)


def built(
    path: Path, solver: Any, net: Any, state: Any, in_copy: bool = False
) -> Optional[List[Dict[str, Any]]]:
    """Return what the train net's layers hold once another process has built a solver's nets.

    Return None where a copy of this process is wanted and does not work, and a process with no more
    than its path cannot build them either: that does not say that this one cannot.

    Args:
        path, solver: the solver file, for messages, and the ``SolverParameter`` in it.
        net: the train net's ``NetParameter``.
        state: its ``NetState``.
        in_copy: the process is a copy of this one, and not one such as ``caffe train``.

    Raises:
        UserError: Caffe cannot build the solver's nets; Caffe's own reason is given.
    """
    stated = type(solver)()
    stated.CopyFrom(solver)
    stated.train_state.CopyFrom(state)
    # What is of no matter to the nets, and what only Python's update knows.
    stated.type, stated.lr_policy = "SGD", "fixed"
    stated.snapshot = 0  # else it wants to write where snapshots go
    silent = type(net)()
    silent.CopyFrom(net)
    silence_writers(silent)  # what they wrote before is not to be lost by looking
    nets = _Nets(stated, silent)
    question = nets.question()
    kept = question.kept() if question else None
    if kept is None:
        kept = _ask(path, nets, in_copy)
        if question and kept is not None:
            question.keep(kept, nets.files or ())
    layers: Optional[List[Dict[str, Any]]] = None if kept is None else json.loads(kept)
    return layers


def _ask(path: Path, nets: _Nets, in_copy: bool) -> Optional[bytes]:
    """Return Caffe's answer; None where no other process than this one can tell."""
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
        answer = Path(directory, "layers.json")
        task = (_build_here, str(nets.write(Path(directory))), str(answer))
        outcome = run_in_copy(*task) if in_copy else run_with_caffe(*task)
        if outcome is None:
            outcome = run_with_path(*task)
            if outcome.status != 0:
                return None
        if outcome.status != 0:
            reason = pycaffe.failure_reason(outcome.log)
            raise UserError(f"{path}: Caffe cannot build its nets: {reason}")
        return answer.read_bytes()


class _Nets:
    """A solver's nets, which are built as they were read, whatever becomes of their files.

    Args:
        solver: a ``SolverParameter`` of which nobody else knows.
        train: its train net.
    """

    def __init__(self, solver: Any, train: Any) -> None:
        self.solver, self.train = solver, train
        (self._field,) = (name for name in TRAIN_NET_FIELDS if solver.HasField(name))
        self.tests: Optional[List[Any]] = None
        self.files: Optional[List[str]] = None
        with suppress(UserError):  # Caffe takes older ones
            self.tests = [read_net(Path(path)) for path in solver.test_net]
            self.files = files_read([train, *solver.test_net_param, *self.tests])

    def question(self) -> Optional[Question]:
        """Return what is asked; None where nobody knows what the answer depends on."""
        if self.files is None or list(getattr(self.solver, "weights", [])):
            return None
        asked = type(self.solver)()
        asked.CopyFrom(self.solver)
        for name in (*_NO_MATTER.split(), *TRAIN_NET_FIELDS, "test_net"):
            if name in asked.DESCRIPTOR.fields_by_name:  # which a fork may have dropped
                asked.ClearField(name)
        nets = [net.SerializeToString() for net in (self.train, *(self.tests or ()))]
        places = json.dumps([self._field, *map(os.path.abspath, self.files)])
        return Question(_build_here, identity(), places, asked.SerializeToString(), *nets)

    def write(self, directory: Path) -> Path:
        """Write solver and nets into a folder; return the solver file."""
        nets = dict(enumerate(self.tests or ()))
        if nets:
            del self.solver.test_net[:]
        for number, net in nets.items():
            self.solver.test_net.append(_written(net, directory / f"test{number}.prototxt"))
        if self._field in ("net", "train_net"):
            path = _written(self.train, directory / "net.prototxt")
            setattr(self.solver, self._field, path)
        else:
            getattr(self.solver, self._field).CopyFrom(self.train)
        return Path(_written(self.solver, directory / "solver.prototxt"))


def _written(message: Any, path: Path) -> str:
    path.write_text(to_text(message), encoding="utf-8")
    return str(path)


def _build_here(prototxt: str, answer: str) -> None:
    """Build the nets and write down what the train net's layers hold."""
    net = pycaffe.compiled().get_solver(prototxt).net
    Path(answer).write_text(json.dumps(described(net)))


def described(net: Net) -> List[Dict[str, Any]]:
    """Return what the layers of a net hold: names and types, blobs and params."""
    blobs = [[(blob, tuple(blob.shape)) for blob in layer.blobs] for layer in net.layers]
    each = [one for its in blobs for one in its]
    # Caffe writes out the multipliers that it really uses. Emptied blobs keep that file small, and
    # a blob that shrinks keeps its memory.
    try:
        for blob, _ in each:
            blob.reshape(0)
        with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as directory:
            saved = Path(directory, "net.caffemodel")
            net.save(str(saved))
            described = pycaffe.messages().NetParameter.FromString(saved.read_bytes())
    finally:
        for blob, shape in each:
            blob.reshape(*shape)
    return [
        {
            "name": layer.name,
            "type": layer.type,
            "blobs": [shape for _, shape in its],
            "param": [_spec_as_written(spec) for spec in layer.param],
        }
        for layer, its in zip(described.layer, blobs)
    ]


def _spec_as_written(spec: Any) -> Dict[str, Any]:
    return {field.name: value for field, value in spec.ListFields()}
