"""Signals that all ranks act on at the same iteration.

Caffe acts on a signal at the end of an iteration. One that stopped there alone would leave the
others waiting for its gradients; so a rank keeps back what it was asked for, all ranks hear of it
with the gradients, and each then lets Caffe's own handler have the signal.
"""

from __future__ import annotations

import ctypes
import signal
from typing import Any, Dict, Set

STOP, SNAPSHOT = signal.SIGINT, signal.SIGHUP

# mpiexec may hand on none but these; SIGTERM is what most send when they are interrupted.
_MEANT = {
    signal.SIGINT: STOP,
    signal.SIGTERM: STOP,
    signal.SIGUSR1: STOP,
    signal.SIGHUP: SNAPSHOT,
    signal.SIGUSR2: SNAPSHOT,
}

_libc = ctypes.CDLL(None, use_errno=True)
_ACTION_BYTES = 256  # more than a ``struct sigaction`` takes anywhere


class Signals:
    """What this rank was asked to do, and the way to Caffe's own handlers.

    Made in the main thread, after Caffe has set its handlers and before MPI sets some of its own.
    """

    def __init__(self) -> None:
        self._asked: Set[signal.Signals] = set()
        self._caffes: Dict[signal.Signals, Any] = {}
        for number in (STOP, SNAPSHOT):
            action = ctypes.create_string_buffer(_ACTION_BYTES)
            _libc.sigaction(int(number), None, action)
            self._caffes[number] = action

    def hold(self) -> None:
        """Keep signals back from now on."""
        for number in _MEANT:
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self._asked.add(_MEANT[signal.Signals(number)])

    def take(self, meant: signal.Signals) -> bool:
        """Return whether this rank was asked for this since the last time."""
        asked = meant in self._asked
        self._asked.discard(meant)
        return asked

    def give_to_caffe(self, meant: signal.Signals) -> None:
        """Let Caffe act on a signal when the iteration ends."""
        _libc.sigaction(int(meant), self._caffes[meant], None)
        signal.raise_signal(meant)
        signal.signal(meant, self._note)
