"""The in-net host: three Python layers through which Python owns the update of ``caffe train``.

``prototxt_templates/`` shows them as a Caffe user sees them, ``docs/in-net.md`` tells why there are
three. In short: the *hook* is first in the net, so its backward runs last and finds every gradient
complete; *parameters* shares every learnable parameter by name; the *seal* is last, and connects
the two once the net has registered all that it registers. A net sets its layers up one after
another, so the take-over that the hook begins is the one that the next seal completes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import AbstractSet, Any, List, Mapping, Optional

import numpy as np

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.build import Memory, States, announcement, build_updater, clipping_line
from caffe_pysgd.hosts.in_net.fatal import speaks_before_it_dies
from caffe_pysgd.hosts.in_net.recording import InNetRecording
from caffe_pysgd.run.settings import (
    FIRST_STATE_BLOB,
    HEADER_BLOB,
    HEADER_SIZE,
    UpdateSettings,
    is_live,
    pack_header,
    unpack_header,
)
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import Observer, Parameter, Statistics, Updater

_caffe: Any = pycaffe.compiled()

LOSS, RATE, UPDATE_L2, UPDATE_RATIO = range(4)  # the hook's tops


class TakeOver:
    """The update of one net: what its three layers know of each other."""

    begun: Optional[TakeOver] = None

    def __init__(self, settings: UpdateSettings, hook: Hook) -> None:
        self.settings = settings
        self.hook = hook
        self.resume_wanted = _resume_wanted(settings.resume)
        self.parameters_layer: Any = None
        self.blobs: List[Any] = []
        self.updater: Optional[Updater] = None
        statistics = frozenset(p.name for p in settings.parameters if p.statistic)
        self.figures = UpdateFigures(settings.display, statistics)
        self.recording = InNetRecording(settings) if settings.audit else None
        self.next_iteration = 0
        # Where Caffe knows GPUs, a blob's memory may be there and must be asked for each time.
        # Elsewhere these blobs, which no other layer owns, stay where they are.
        self.may_move = hasattr(_caffe.Blob, "_gpu_data_ptr")
        self.rate = np.float32(0)

    def add_state_blobs(self) -> None:
        """Give the hook the blobs in which Caffe's snapshots keep the state."""
        blobs = self.hook.blobs
        parameters = self.settings.parameters
        sizes = [parameters[index].count for index, _ in self.settings.state_layout()]
        for size in [HEADER_SIZE, *sizes]:
            blobs.add_blob(size)
            blobs[len(blobs) - 1].data[...] = 0

    @property
    def header(self) -> np.ndarray:
        """The state's header: whether there is any, iteration and current_step."""
        header: np.ndarray = self.hook.blobs[HEADER_BLOB].data
        return header

    def start(self) -> None:
        """Begin to update: weights and state are loaded by now, if any are."""
        resumed = self._settle_state()
        observers: List[Observer] = [self.figures]
        if self.recording:
            observers.append(self.recording.recorder)
        self.updater = build_updater(
            self.settings, self.blobs, self._states(), observers, clears_diffs=True
        )
        self.memory = Memory(self.updater, self.blobs)
        self.next_iteration, current_step = unpack_header(self.header)
        self.updater.resume(self.next_iteration, current_step)
        if self.recording:
            self.recording.start(self.updater, self.next_iteration, resumed)
        state = f"resumed at iteration {self.next_iteration}" if resumed else "fresh"
        _caffe.log(announcement(self.settings, self.updater, state))

    def _settle_state(self) -> bool:
        """Decide whether the loaded state is used; return whether it is."""
        loaded = is_live(self.header)
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

    def gradients_complete(self) -> bool:
        """Count a pass; return whether it was the last of ``iter_size``.

        The count is kept where Caffe sets it back to 0: in a diff, which each iteration clears
        before its first pass. So it is right also after an iteration that an exception cut short.
        """
        count = self.hook.blobs[0].diff
        count[0] += 1
        complete = bool(count[0] >= self.settings.hyperparameters["iter_size"])
        if complete:
            count[0] = 0
        return complete

    def update(self) -> None:
        """Apply one update, and leave nothing for the native one to do."""
        updater = self.updater
        assert updater is not None
        header = self.header
        iteration, current_step = unpack_header(header)
        if iteration != self.next_iteration:  # a Python program restored the solver
            updater.resume(iteration, current_step)
        if self.may_move:
            self.memory.fetch()
            for state, now in zip(updater.states, self._states()):
                state.update(now)
        if self.recording:
            self.recording.update_begins(iteration)
        self.rate = updater.step(iteration)
        clipped = clipping_line(updater)
        if clipped:
            _caffe.log(clipped)
        self.next_iteration = iteration + 1
        header[:] = pack_header(self.next_iteration, updater.current_step)
        if self.recording:
            self.recording.recorder.updated(iteration, self.rate)


class UpdateFigures(Observer):
    """The size of the update, for the iterations that Caffe displays.

    BatchNorm's running statistics are no weights, often far greater, and left out.

    Attributes:
        l2: the L2 norm of the update over all parameters.
        ratio: the same divided by the norm of the new weights.
    """

    def __init__(self, display: int, statistics: AbstractSet[str]) -> None:
        self.display, self._statistics = display, statistics
        self.l2 = self.ratio = 0.0
        self._update_sumsq = self._data_sumsq = 0.0

    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return self.display > 0 and iteration % self.display == 0

    def measure(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        figures: Mapping[str, Statistics],
    ) -> None:
        if parameter.name in self._statistics:
            return
        self._update_sumsq += figures["update"].l2 ** 2
        self._data_sumsq += figures["data"].l2 ** 2

    def end(self, iteration: int, rate: np.float32) -> None:
        self.l2 = self._update_sumsq**0.5
        self.ratio = self.l2 / self._data_sumsq**0.5 if self._data_sumsq else 0.0
        self._update_sumsq = self._data_sumsq = 0.0


class Hook(_caffe.Layer):  # type: ignore[name-defined]
    """The first layer: its backward is the update."""

    @speaks_before_it_dies
    def setup(self, bottom: Any, top: Any) -> None:
        self.take_over = TakeOver(UpdateSettings.from_json(self.param_str), self)
        TakeOver.begun = self.take_over
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 0
        if self.take_over.settings.registered:
            self.take_over.add_state_blobs()

    @speaks_before_it_dies
    def reshape(self, bottom: Any, top: Any) -> None:
        for index in range(len(top)):  # pycaffe cannot iterate over these
            top[index].reshape(1)

    @speaks_before_it_dies
    def forward(self, bottom: Any, top: Any) -> None:
        top[LOSS].data[...] = 0
        take_over = self.take_over
        if take_over.updater is None:
            take_over.start()
        if take_over.recording:
            take_over.recording.pass_begins(first=not self.blobs[0].diff[0])

    @speaks_before_it_dies
    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        take_over = self.take_over
        if take_over.recording:
            take_over.recording.losses.pass_ends()
        if take_over.gradients_complete():
            take_over.update()
            top[RATE].data[...] = take_over.rate
            top[UPDATE_L2].data[...] = take_over.figures.l2
            top[UPDATE_RATIO].data[...] = take_over.figures.ratio


class _AsideOfTheData(_caffe.Layer):  # type: ignore[name-defined]
    """A layer without tops and bottoms: it has nothing to do but its setup."""

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        pass

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass


class Parameters(_AsideOfTheData):
    """The last layer but one: shares every learnable parameter, by name."""

    @speaks_before_it_dies
    def setup(self, bottom: Any, top: Any) -> None:
        take_over = TakeOver.begun
        if take_over is None:
            raise UserError("the net has a parameters layer but no hook; inject the net anew")
        for parameter in take_over.settings.parameters:
            self.blobs.add_blob(*parameter.shape)
        take_over.blobs = [self.blobs[i] for i in range(len(self.blobs))]
        take_over.parameters_layer = self


class Seal(_AsideOfTheData):
    """The last layer: completes the take-over once the net has registered its parameters."""

    @speaks_before_it_dies
    def setup(self, bottom: Any, top: Any) -> None:
        take_over, TakeOver.begun = TakeOver.begun, None
        if take_over is None or not take_over.blobs:
            raise UserError("the net has a seal but no hook or parameters; inject the net anew")
        # The net holds and shares the blobs by now; a layer without blobs is not snapshotted.
        del take_over.parameters_layer.blobs[:]
        if not take_over.settings.registered:
            take_over.add_state_blobs()


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
        raise UserError(f"CAFFE_PYSGD_RESUME: found '{setting}', allowed: auto, always, never")
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
