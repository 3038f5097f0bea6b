"""The take-over of one net's update: what the three layers share, and the update itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, List, Optional

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.errors import SettingError, UserError, one_of
from caffe_pysgd.hosts.audience import observers_of, tell_updated
from caffe_pysgd.hosts.build import States, announcement, build_updater, clipping_line
from caffe_pysgd.hosts.in_net.recording import InNetRecording
from caffe_pysgd.hosts.in_net.update_size import UpdateFigures
from caffe_pysgd.hosts.memory import Memory
from caffe_pysgd.hosts.ranks.ranks import Ranks
from caffe_pysgd.run.settings import (
    FIRST_STATE_BLOB,
    HEADER_BLOB,
    Header,
    UpdateSettings,
    is_live,
    pack_header,
    unpack_header,
)
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.protocols import Blob
from caffe_pysgd.update import Updater

_caffe: Any = pycaffe.compiled()


class TakeOver:
    """The update of one net: what its three layers know of each other."""

    begun: Optional[TakeOver] = None

    def __init__(self, settings: UpdateSettings, hook: Any) -> None:
        self.settings = settings
        self.hook = hook
        self.ranks = Ranks(settings.ranks) if settings.ranks else None
        if self.ranks:  # first: what fails from now on ends all of them
            self.ranks.deal()
        self.resume_wanted = _resume_wanted(settings.resume)
        self.parameters_layer: Any = None
        self.blobs: List[Blob] = []
        self.owns_parameters = False
        self._unfinished = False
        self.updater: Optional[Updater] = None
        statistics = frozenset(p.name for p in settings.parameters if p.statistic)
        shown = settings.display if settings.log_outputs else 0
        self.figures = UpdateFigures(shown, statistics)
        self.observers = [self.figures, *observers_of(settings, "in-net")]
        self.recording = InNetRecording(settings, self.observers) if settings.audit else None
        self.next_iteration = 0
        self._iter_size = int(settings.hyperparameters["iter_size"])
        # Where Caffe knows GPUs, a blob's memory may be there and must be asked for each time.
        # Elsewhere these blobs, which no other layer owns, stay where they are.
        self.may_move = hasattr(_caffe.Blob, "_gpu_data_ptr")
        self.rate = np.float32(0)

    def add_state_blobs(self) -> None:
        """Give the hook the blobs in which Caffe's snapshots keep the state."""
        blobs = self.hook.blobs
        parameters = self.settings.parameters
        sizes = [parameters[index].count for index, _ in self.settings.state_layout()]
        for size in [self.settings.header_size, *sizes]:
            blobs.add_blob(size)
            blobs[len(blobs) - 1].data[...] = 0

    def _find_header(self) -> Floats:
        """Return the state's header: whether there is any, iteration and current_step."""
        header: Floats = self.hook.blobs[HEADER_BLOB].data
        return header

    def start(self) -> None:
        """Begin to update: weights and state are loaded by now, if any are."""
        resumed = self._settle_state()
        self.updater = build_updater(
            self.settings, self.blobs, self._states(), self.observers, clears_diffs=True
        )
        self.memory = Memory(self.updater, self.blobs)
        self._header = self._find_header()
        state = unpack_header(self._header)
        self.next_iteration = state.iteration
        self.updater.resume(*state)
        if self.recording:
            self.recording.start(self.updater.kernels, self.next_iteration)
        if self.ranks:
            state_blobs = (
                self.hook.blobs[i].data for i in range(HEADER_BLOB, len(self.hook.blobs))
            )
            self.ranks.begin(self.settings, self.updater, self.next_iteration, state_blobs)
        if resumed:
            for observer in self.observers:
                observer.restored()
        if self.owns_parameters and not self.may_move:
            self._hide_from_caffe()
        origin = f"resumed at iteration {self.next_iteration}" if resumed else "fresh"
        _caffe.log(announcement(self.settings, self.updater, origin))

    def _hide_from_caffe(self) -> None:
        """Let Caffe's walks over the learnable parameters meet one value of each.

        A blob that shrinks keeps its memory, which the user's layers share: their own blobs, which
        snapshots and test nets ask, stay as they are. From now on nobody clears the gradients but
        the update.
        """
        for blob in self.blobs:
            blob.reshape(1)

    def pass_begins(self) -> None:
        """Called before a forward pass."""
        if self.updater is None:
            self.start()
        assert self.updater is not None
        first = not self.passes_done()
        if first and self._unfinished:  # an exception cut the last iteration short
            for p in self.updater.parameters:
                p.diff[...] = 0
        self._unfinished = True
        if self.recording:
            self.recording.pass_begins(first)

    def _settle_state(self) -> bool:
        """Decide whether the loaded state is used; return whether it is."""
        loaded = is_live(self._find_header())
        wanted = self.resume_wanted
        if wanted and not loaded:
            raise UserError(
                f"the snapshot holds no state of the update {self.settings.hook_name} (rule "
                f"'{self.settings.rule}' on this net): it was taken with another rule, of another "
                "net, or by the native solver; start from its weights instead (--weights)"
            )
        resumed = loaded if wanted is None else wanted
        if not resumed:
            for index in range(HEADER_BLOB, len(self.hook.blobs)):
                self.hook.blobs[index].data[...] = 0
        return resumed

    def _states(self) -> States:
        states: States = [{} for _ in self.settings.parameters]
        for number, (index, slot) in enumerate(self.settings.state_layout()):
            states[index][slot] = self.hook.blobs[FIRST_STATE_BLOB + number].data.reshape(-1)
        return states

    def passes_done(self) -> int:
        """Return how many of an iteration's ``iter_size`` passes are done.

        The count is kept where Caffe sets it back to 0: in a diff, which each iteration clears
        before its first pass. So it is right also after an iteration that an exception cut short.
        """
        return 0 if self._iter_size == 1 else int(self.hook.blobs[0].diff[0])

    def in_last_pass(self) -> bool:
        """Return whether this pass is the last of ``iter_size``."""
        return self.passes_done() + 1 >= self._iter_size

    def gradients_complete(self) -> bool:
        """Count a pass; return whether it was the last of ``iter_size``."""
        complete = self.in_last_pass()
        if self._iter_size > 1:
            self.hook.blobs[0].diff[0] = 0 if complete else self.passes_done() + 1
        return complete

    def update(self) -> None:
        """Apply one update, and leave nothing for the native one to do."""
        updater = self.updater
        assert updater is not None
        if self.may_move:
            self._header = self._find_header()
            self.memory.fetch()
            for slots, now in zip(updater.states, self._states()):
                slots.update(now)
        header = self._header
        state = unpack_header(header)
        iteration = state.iteration
        if iteration != self.next_iteration:  # a Python program restored the solver
            updater.resume(*state)
        if self.recording:
            updater.smoothed_loss = self.recording.update_begins(iteration)
        if self.ranks:
            self.ranks.complete(iteration)
            while self.ranks.agreed:
                self.ranks.signals.give_to_caffe(self.ranks.agreed.pop())
        self.rate = updater.step(iteration)
        clipped = clipping_line(updater)
        if clipped:
            _caffe.log(clipped)
        self.next_iteration = iteration + 1
        done = Header(self.next_iteration, updater.current_step, updater.plateau)
        header[:] = pack_header(done, len(header))
        self._unfinished = False
        tell_updated(updater, iteration, self.rate)


def _resume_wanted(setting: str) -> Optional[bool]:
    """Return whether this process resumes; None where only the loaded model can tell.

    Caffe does not tell a layer whether weights come from ``--snapshot`` or from ``--weights``, but
    the process's own command line does.
    """
    setting = os.environ.get("CAFFE_PYSGD_RESUME", setting)
    if setting == "always":
        return True
    if setting == "never":
        return False
    if setting != "auto":
        allowed = one_of(("auto", "always", "never"), setting)
        raise SettingError("CAFFE_PYSGD_RESUME", setting, allowed)
    if not pycaffe.in_caffe_binary():
        return None
    return bool(_flag(b"snapshot"))


def _flag(name: bytes) -> bytes:
    """Return the value of a flag of the `caffe` program, as gflags reads it; empty if not given."""
    arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:]
    value = b""
    for argument, following in zip(arguments, [*arguments[1:], b""]):
        flag, equals, inline = argument.partition(b"=")
        if argument.startswith(b"-") and flag.lstrip(b"-") == name:
            value = inline if equals else following
    return value
