"""What the injector tells the layers: the one message between the two, as JSON in ``param_str``."""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.update.policies.plateau import UNSEEN, PlateauState

MODULE = "caffe_pysgd.hosts.in_net"
HOOK_NAME = re.compile(r"pysgd_(?P<rule>.+)_[0-9a-f]{8}$")

# The hook's blobs: one that makes Caffe call backward, the header, then slot by slot the state.
HEADER_BLOB = 1
FIRST_STATE_BLOB = 2
_HEADER_SIZE, _HEADER_SIZE_WITH_PLATEAU = 4, 7


@dataclass(frozen=True)
class ParameterSettings:
    """A learnable parameter, as far as the layers need to know it.

    Attributes:
        rule, slots: its update rule, and the names of the rule's state slots.
        hyperparameters: those that differ from the others', by name.
        freeze_until, freeze_from: outside of these iterations it is not updated.
        statistic: whether it is one of BatchNorm's running statistics, and no weight.
    """

    name: str
    shape: Tuple[int, ...]
    lr_mult: float
    decay_mult: float
    rule: str
    slots: Tuple[str, ...]
    hyperparameters: Dict[str, Any]
    freeze_until: int
    freeze_from: Optional[int]
    statistic: bool = False

    @property
    def count(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AuditSettings:
    """What is recorded, and where.

    Attributes:
        file: the store.
        manifest: a JSON file with what is known of the run before it starts.
        every: at each n-th iteration the figures are recorded; 0 for never, and then the rest of
            the record is the loss and the rate.
        thin_after: after so many iterations every second of these is left out, after twice as many
            three of four, and so on; 0 for never.
        quantities: the arrays whose figures are recorded; all without any.
        parameters: the numbers of the parameters whose figures are recorded; all without any.
        histograms: at each n-th iteration the histograms, too; 0 for never.
        probes: elements of which every stage is recorded, as (parameter, flat index).
        weights_every: the weights are hashed each time that n more updates are done; 0 for never.
            They are hashed after the last one in any case.
        max_iter, average_loss: the solver's.
        snapshot_prefix, hdf5: how Caffe names its snapshots.
        records_loss: whether the taps of the net see all of its loss.
    """

    file: str
    manifest: str
    every: int
    histograms: int
    probes: Tuple[Tuple[int, int], ...]
    weights_every: int
    max_iter: int
    average_loss: int
    snapshot_prefix: str
    hdf5: bool
    records_loss: bool = True
    thin_after: int = 0
    quantities: Tuple[str, ...] = ()
    parameters: Tuple[int, ...] = ()

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> AuditSettings:
        """Return the settings that ``asdict`` made plain."""
        known = {name: value for name, value in fields.items() if name != "on_nonfinite"}
        for name in ("quantities", "parameters"):
            known[name] = tuple(known.get(name, ()))
        return cls(**{**known, "probes": tuple(map(tuple, known["probes"]))})

    def is_due(self, iteration: int) -> bool:
        """Return whether the figures of an iteration are recorded."""
        return bool(self.every) and iteration % self.every_at(iteration) == 0

    def every_at(self, iteration: int) -> int:
        """Return at each how many-th iteration they are recorded there; ``every`` must not be 0."""
        if not self.thin_after:
            return self.every
        return self.every << (iteration // self.thin_after).bit_length()


TRAIN_LOSS = "train_loss"  # no test output: the smoothed loss of the training


@dataclass(frozen=True)
class KeepSettings:
    """Which snapshots stay.

    Attributes:
        prefix, hdf5: how the snapshots are named.
        last: how many of the newest.
        best: the test output, or ``train_loss``, by which one more is the best; empty for none.
        highest: whether the highest value is the best, and not the lowest.
    """

    prefix: str
    hdf5: bool
    last: int
    best: str
    highest: bool


@dataclass(frozen=True)
class RankSettings:
    """How processes train together.

    Attributes:
        count: how many there are.
        timeout: the seconds after which one that does not answer is taken for lost.
        check_every: at each n-th iteration the weights of all are compared; 0 for never.
        random_seed: the solver's; negative for none.
        buckets: the numbers of the parameters whose gradients are sent together, one bucket after
            the other; those in none come last.
        sent_before: for each bucket the layer before whose bottom's backward it is complete.
    """

    count: int
    timeout: float
    check_every: int
    random_seed: int
    buckets: Tuple[Tuple[int, ...], ...] = ()
    sent_before: Tuple[str, ...] = ()

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> RankSettings:
        """Return the settings that ``asdict`` made plain."""
        buckets = tuple(map(tuple, fields["buckets"]))
        return cls(**{**fields, "buckets": buckets, "sent_before": tuple(fields["sent_before"])})


@dataclass(frozen=True)
class LoggerSettings:
    """Who is told of the run while it trains.

    Attributes:
        names: ``tensorboard``, ``csv``, ``mlflow``, or a class of the user's own, ``module:Class``.
        folder: the run directory.
        every: loss and rate are told at each n-th iteration.
    """

    names: Tuple[str, ...]
    folder: str
    every: int


# What version 0.1 called the reactions to a gradient that is not finite; they were the audit's.
_REACTIONS_OF_0_1 = {"raise": "stop", "skip": "skip", "record": "ignore"}


def reaction_of(audit: Mapping[str, Any]) -> str:
    """Return the reaction to a gradient that is not finite that is written among an audit's."""
    return _REACTIONS_OF_0_1.get(audit.get("on_nonfinite") or "", "")


@dataclass(frozen=True)
class UpdateSettings:
    """Everything that the in-net layers are told.

    Attributes:
        rule: the update rule's name.
        kernels: which kernels compute it.
        exact: whether fused kernels have the bits of libm's powers.
        hyperparameters: as :meth:`HyperParameters.as_plain` gives them.
        parameters: the learnable parameters, in Caffe's order.
        display: Caffe's ``display``: at these iterations the log's figures are computed.
        resume: ``auto``, ``always`` or ``never`` use the state that a loaded model holds.
        registered: whether the state blobs are learnable parameters of the net (with lr_mult 0),
            which HDF5 snapshots and debug_info need.
        module_path: the folder of the user's own modules, relative to the working directory;
            empty for none.
        on_nonfinite: ``stop``, ``skip`` or ``ignore`` a gradient that is not finite; empty where
            nobody looks.
        audit: what is recorded; None for nothing.
        log_outputs: whether Caffe's log shows the rate and the size of the update.
        keep: which snapshots stay; None for all.
        ranks: how processes train together; None for one alone.
        loggers: who is told; None for nobody.
    """

    rule: str
    kernels: str
    exact: bool
    hyperparameters: Dict[str, Any]
    parameters: Tuple[ParameterSettings, ...]
    display: int
    resume: str
    registered: bool
    module_path: str
    on_nonfinite: str = ""
    audit: Optional[AuditSettings] = None
    log_outputs: bool = True
    keep: Optional[KeepSettings] = None
    ranks: Optional[RankSettings] = None
    loggers: Optional[LoggerSettings] = None

    def to_json(self) -> str:
        """Return the settings as a ``param_str``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, param_str: str) -> UpdateSettings:
        """Return the settings in a ``param_str``."""
        fields = json.loads(param_str)
        for parameter in fields["parameters"]:
            for name in ("shape", "slots"):
                parameter[name] = tuple(parameter[name])
        fields["parameters"] = tuple(ParameterSettings(**p) for p in fields["parameters"])
        if fields.get("audit"):
            fields.setdefault("on_nonfinite", reaction_of(fields["audit"]))
            fields["audit"] = AuditSettings.from_plain(fields["audit"])
        if fields.get("keep"):
            fields["keep"] = KeepSettings(**fields["keep"])
        if fields.get("ranks"):
            fields["ranks"] = RankSettings.from_plain(fields["ranks"])
        if fields.get("loggers"):
            told = fields["loggers"]
            fields["loggers"] = LoggerSettings(**{**told, "names": tuple(told["names"])})
        return cls(**fields)

    @property
    def hook_name(self) -> str:
        """The hook layer's name: the rule, and a fingerprint of what its state describes.

        Caffe loads weights by layer name, so a model that holds another rule's or another net's
        state is simply not loaded into this hook, and a resume notices that nothing came.
        """
        described: List[Any] = [(p.name, p.shape, p.rule, p.slots) for p in self.parameters]
        if self.has_plateau:  # of which the header is longer
            described.append("plateau")
        fingerprint = zlib.crc32(json.dumps(described).encode())
        return f"pysgd_{plain_rule_name(self.rule)}_{fingerprint:08x}"

    @property
    def has_plateau(self) -> bool:
        """Whether the rate depends on the loss, and what was seen of it is part of the state."""
        return bool(self.hyperparameters["lr_policy"] == "plateau")

    @property
    def header_size(self) -> int:
        """The number of values in the header blob."""
        return _HEADER_SIZE_WITH_PLATEAU if self.has_plateau else _HEADER_SIZE

    def state_layout(self) -> List[Tuple[int, str]]:
        """Return the state blobs in order, each as (index of the parameter, name of the slot).

        First slots first, as ``.solverstate`` has them: all ``m``, then all ``v``.
        """
        depth = max(len(p.slots) for p in self.parameters)
        return [
            (index, p.slots[number])
            for number in range(depth)
            for index, p in enumerate(self.parameters)
            if number < len(p.slots)
        ]

    def state_names(self) -> List[str]:
        """Return what the state blobs are called."""
        return [f"{slot} of {self.parameters[index].name}" for index, slot in self.state_layout()]


def plain_rule_name(rule: str) -> str:
    """Return a rule's name as a layer's name holds it."""
    return re.sub("[^A-Za-z0-9_]", "-", rule)


class Header(NamedTuple):
    """What an in-net state says beside the history."""

    iteration: int
    current_step: int
    plateau: PlateauState = UNSEEN


def pack_header(header: Header, size: int) -> Floats:
    """Return the header blob of a state: [1, iteration, step, and of plateau minimum and event].

    An iteration takes two numbers because a float32 holds whole numbers up to 2^24 exactly.
    """
    minimum, event = header.plateau
    values: List[float] = [1, *divmod(header.iteration, 1 << 24), header.current_step]
    values += [float(minimum), *divmod(event, 1 << 24)]
    return np.array(values[:size], np.float32)


def unpack_header(header: Floats) -> Header:
    """Return what a header blob says."""
    plain = Header((int(header[1]) << 24) + int(header[2]), int(header[3]))
    if len(header) == _HEADER_SIZE or not is_live(header):
        return plain
    event = (int(header[5]) << 24) + int(header[6])
    return plain._replace(plateau=PlateauState(np.float32(header[4]), event))


def is_live(header: Floats) -> bool:
    """Return whether a header blob was ever written."""
    return bool(header[0] == 1)
