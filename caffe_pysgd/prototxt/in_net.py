"""What the injector tells the layers: the one message between the two, as JSON in ``param_str``."""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

MODULE = "caffe_pysgd.hosts.in_net"
HOOK_PREFIX = "pysgd_"

# The hook's blobs: one that makes Caffe call backward, the header, then slot by slot the state.
HEADER_BLOB = 1
FIRST_STATE_BLOB = 2
HEADER_SIZE = 4


@dataclass(frozen=True)
class ParameterSettings:
    """A learnable parameter, as far as the layers need to know it.

    Attributes:
        rule, slots: its update rule, and the names of the rule's state slots.
        hyperparameters: those that differ from the others', by name.
        freeze_until, freeze_from: outside of these iterations it is not updated.
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

    @property
    def count(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class InNetSettings:
    """Everything that the in-net layers are told.

    Attributes:
        rule: the update rule's name.
        kernels: which kernels compute it.
        hyperparameters: as :meth:`HyperParameters.as_plain` gives them.
        parameters: the learnable parameters, in Caffe's order.
        display: Caffe's ``display``: at these iterations the log's figures are computed.
        resume: ``auto``, ``always`` or ``never`` use the state that a loaded model holds.
        registered: whether the state blobs are learnable parameters of the net (with lr_mult 0),
            which HDF5 snapshots and debug_info need.
        module_path: the folder of the user's own modules, relative to the working directory;
            empty for none.
    """

    rule: str
    kernels: str
    hyperparameters: Dict[str, Any]
    parameters: Tuple[ParameterSettings, ...]
    display: int
    resume: str
    registered: bool
    module_path: str

    def to_json(self) -> str:
        """Return the settings as a ``param_str``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, param_str: str) -> InNetSettings:
        """Return the settings in a ``param_str``."""
        fields = json.loads(param_str)
        for parameter in fields["parameters"]:
            for name in ("shape", "slots"):
                parameter[name] = tuple(parameter[name])
        fields["parameters"] = tuple(ParameterSettings(**p) for p in fields["parameters"])
        return cls(**fields)

    @property
    def hook_name(self) -> str:
        """The hook layer's name: the rule, and a fingerprint of what its state describes.

        Caffe loads weights by layer name, so a model that holds another rule's or another net's
        state is simply not loaded into this hook, and a resume notices that nothing came.
        """
        described = [(p.name, p.shape, p.rule, p.slots) for p in self.parameters]
        fingerprint = zlib.crc32(json.dumps(described).encode())
        return f"{HOOK_PREFIX}{re.sub('[^A-Za-z0-9]', '-', self.rule)}_{fingerprint:08x}"

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


def pack_iteration(iteration: int) -> Sequence[int]:
    """Return the iteration as two numbers that a float32 blob holds exactly."""
    return divmod(iteration, 1 << 24)


def unpack_iteration(high: float, low: float) -> int:
    """Return the iteration that :func:`pack_iteration` packed."""
    return (int(high) << 24) + int(low)
