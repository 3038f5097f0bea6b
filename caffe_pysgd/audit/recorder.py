"""The recorder: an observer that writes down what happens."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from caffe_pysgd.arrays import Floats
from caffe_pysgd.audit import manifest
from caffe_pysgd.audit.ledger import Row, array_hash, weights_root
from caffe_pysgd.audit.probes import Histograms, Probes, real
from caffe_pysgd.audit.seal import sealed
from caffe_pysgd.audit.writer import Writer
from caffe_pysgd.files import file_hash
from caffe_pysgd.run.settings import AuditSettings, UpdateSettings
from caffe_pysgd.update import Observer, Parameter, Stage, Statistics
from caffe_pysgd.update.guard import NonFinite, describe
from caffe_pysgd.update.stages import Clipping

_FLUSH_SECONDS = 1.0


class Recorder(Observer):
    """Writes an audit while the update runs.

    The file is opened at the first update, because only then the initial weights are known, and
    whether the run goes on from a snapshot.

    Args:
        settings: what the update was told, with what is to be recorded.
        host: ``in-net``, ``hook`` or ``solver``.
        log: is told what a person should know of the file.
        stated: what is known of the run; read from the file that the settings name if not given.
    """

    def __init__(
        self,
        settings: UpdateSettings,
        host: str,
        log: Callable[[str], None],
        stated: Optional[Mapping[str, Any]] = None,
    ) -> None:
        assert settings.audit is not None
        self.settings: AuditSettings = settings.audit
        self._updated: Sequence[Parameter] = ()
        self._resumed = False
        self._host, self._log, self._stated = host, log, stated
        self._parameters, self._on_nonfinite = settings.parameters, settings.on_nonfinite
        self._numbers = {p.name: number for number, p in enumerate(settings.parameters)}
        self._writer: Optional[Writer] = None
        self._recording = False
        self._next = 0  # the iteration that the next update should be
        self._waiting: List[Tuple[str, List[Row]]] = []
        self._batch: List[Dict[str, List[Row]]] = []
        self._written_at = 0.0
        self._loss: Optional[float] = None
        self._smoothed: Optional[float] = None
        self._pass_began: Optional[float] = None
        self._pass_seconds: Optional[float] = None
        self._update_began = 0.0
        self._events = 0
        self._forget()

    def _forget(self) -> None:
        """Forget what belongs to one iteration."""
        self._figures: List[Row] = []
        self._updates: List[Row] = []
        self._measured, self._sumsq = False, 0.0
        self._bad: Sequence[NonFinite] = ()
        self._skipped = False
        self._probes = Probes(self.settings.probes)
        self._histograms = Histograms()

    # -- what hosts say ---------------------------------------------------------------------------

    def restored(self) -> None:  # in the same file, as a new session
        self._resumed, self._recording = True, False

    def iteration_begins(self) -> None:
        self._pass_began = time.perf_counter()

    def loss(self, raw: np.float32, smoothed: np.float32) -> None:
        self._loss, self._smoothed = float(raw), float(smoothed)

    def updated(self, iteration: int, rate: np.float32, clipping: Optional[Clipping]) -> None:
        """Write the iteration.

        Raises:
            UserError: the file cannot be written.
        """
        seconds = time.perf_counter() - self._update_began
        self._next = iteration + 1
        if self._row_due(iteration):
            self._batch.append(self._rows(iteration, rate, clipping, seconds))
            # The full record is on disk before the next forward; a loss curve may wait a moment.
            waited = time.perf_counter() - self._written_at
            if self.settings.every or self._bad or waited > _FLUSH_SECONDS:
                self._flush()
        self._loss = self._smoothed = self._pass_began = self._pass_seconds = None
        self._forget()

    def nonfinite(self, iteration: int, found: Sequence[NonFinite], skipped: bool) -> None:
        """Called with gradients that are not finite, and whether the update was skipped."""
        self._bad, self._skipped = found, skipped

    def tested(
        self, iteration: Optional[int], net: int, scores: Sequence[Tuple[int, str, Any]]
    ) -> None:
        rows = [(net, number, name, real(value)) for number, name, value in scores]
        self._between("tests", iteration, rows)

    def snapshot_taken(self, iteration: int, paths: Sequence[Path]) -> None:
        rows: List[Row] = []
        for path in paths:
            try:
                rows.append((str(path), file_hash(path)))
            except OSError:  # somebody was faster than we, and took it away
                rows.append((str(path), None))
        self._between("snapshots", iteration, rows)

    def event(self, iteration: Optional[int], kind: str, message: str) -> None:
        """Record something else that is worth finding later."""
        self._events += 1
        self._between("events", iteration, [(self._events, kind, message)])

    def close(self) -> None:
        """End the session; the next update would begin another."""
        writer, self._writer, self._recording = self._writer, None, False
        if writer is not None:
            try:
                self._flush(writer)
            finally:
                writer.close()
            self._resumed = True  # in the same process, nothing is begun anew

    def _between(self, table: str, iteration: Optional[int], rows: Sequence[Row]) -> None:
        """Write now what lies between two updates, or when the session has begun."""
        number = self._next if iteration is None else iteration
        full = [(number, *row) for row in rows]
        if self._writer is None or not self._recording or number != self._next:
            self._waiting.append((table, [(iteration, *row) for row in rows]))
            return
        self._flush()
        self._writer.add(table, full)

    # -- what the updater says --------------------------------------------------------------------

    def due(self, iteration: int) -> bool:
        return self._probes_due(iteration) or self._histograms_due(iteration)

    def figures_due(self, iteration: int) -> bool:
        return self.settings.is_due(iteration)

    def _probes_due(self, iteration: int) -> bool:
        return bool(self.settings.probes) and self.figures_due(iteration)

    def _histograms_due(self, iteration: int) -> bool:
        return bool(self.settings.histograms and iteration % self.settings.histograms == 0)

    def _weights_due(self, iteration: int) -> bool:
        every, done = self.settings.weights_every, iteration + 1
        return done == self.settings.max_iter or bool(every and done % every == 0)

    def _row_due(self, iteration: int) -> bool:
        """Whether an iteration has a row; without ``every``, which is the loss curve, each has."""
        return (
            not self.settings.every
            or self.figures_due(iteration)
            or self.due(iteration)
            or self._weights_due(iteration)
            or bool(self._bad)
        )

    def begin(self, iteration: int, rate: np.float32, parameters: Sequence[Parameter]) -> bool:
        now = time.perf_counter()
        if self._pass_began is not None:
            self._pass_seconds = now - self._pass_began
        self._updated = parameters
        if not self._recording or iteration != self._next:
            self._begin_session(iteration)
        self._forget()
        self._update_began = time.perf_counter()
        return True

    def observe(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        stage: Stage,
        array: Floats,
    ) -> None:
        number = self._numbers[parameter.name]
        if self._probes_due(iteration):
            self._probes.see(parameter, iteration, number, stage, array)
        if self._histograms_due(iteration) and self._is_chosen(number, stage.value):
            self._histograms.see(iteration, number, stage, array)

    def measure(
        self,
        iteration: int,
        rate: np.float32,
        parameter: Parameter,
        figures: Mapping[str, Statistics],
    ) -> None:
        number = self._numbers[parameter.name]
        gradient, update, data = figures["gradient"], figures["update"], figures["data"]
        self._measured = True
        self._sumsq += gradient.l2 * gradient.l2
        for quantity, (l2, mean, low, high, zeros, nonfinite) in figures.items():
            if not self._is_chosen(number, quantity):
                continue
            # SQLite has one zero only.
            row = (iteration, number, quantity, l2, mean + 0.0, low + 0.0, high + 0.0)
            self._figures.append((*row, zeros, nonfinite))
        if self.settings.parameters and number not in self.settings.parameters:
            return
        weights = not self._parameters[number].statistic
        ratio = update.l2 / data.l2 if data.l2 and weights else None
        self._updates.append((iteration, number, float(parameter.rate), ratio))

    def _is_chosen(self, number: int, quantity: str) -> bool:
        chosen = self.settings
        return (not chosen.parameters or number in chosen.parameters) and (
            not chosen.quantities or quantity in chosen.quantities
        )

    # -- writing ----------------------------------------------------------------------------------

    def _begin_session(self, iteration: int) -> None:
        self._flush()
        if self._writer is None:
            self._writer = Writer(Path(self.settings.file), fresh=not self._resumed)
            if self._writer.kept:
                kept = self._writer.kept
                self._log(f"caffe-pysgd: the audit of the run before is kept as {kept}")
        leaves = self._leaves()
        state = f"resumed at iteration {iteration}" if self._resumed or iteration else "fresh"
        parameters = [
            (number, p.name, json.dumps(p.shape), p.count, p.lr_mult, p.decay_mult, p.rule)
            for number, p in enumerate(self._parameters)
        ]
        self._writer.begin_session(iteration, self._manifest(state, leaves), parameters)
        self._resumed = self._recording = True
        self._next = iteration
        waiting, self._waiting = self._waiting, []
        for table, rows in waiting:
            for number, *rest in rows:
                if number is None or number >= iteration:
                    self._between(table, number, [tuple(rest)])
        if iteration:
            self.event(iteration, "resumed", f"a session goes on from iteration {iteration}")

    def _manifest(self, state: str, leaves: Sequence[Tuple[str, str]]) -> Mapping[str, Any]:
        stated = self._stated
        facts = {
            **(manifest.read(Path(self.settings.manifest)) if stated is None else stated),
            "host": self._host,
            "state": state,
            "kernels": self._updated[0].kernels.name,
            "on_nonfinite": self._on_nonfinite,
            "audit": asdict(self.settings),
            "statistics": [p.name for p in self._parameters if p.statistic],
            "initial_weights": {"sha256": weights_root(leaves), "parameters": dict(leaves)},
            **manifest.surroundings(),
        }
        return sealed(facts)

    def _leaves(self) -> List[Tuple[str, str]]:
        return [(p.name, array_hash(p.data)) for p in self._updated]

    def _rows(
        self, iteration: int, rate: np.float32, clipping: Optional[Clipping], seconds: float
    ) -> Dict[str, List[Row]]:
        weights_hash = None
        rows: Dict[str, List[Row]] = {}
        if self._weights_due(iteration):
            leaves = self._leaves()
            weights_hash = weights_root(leaves)
            rows["weights"] = [(iteration, i, leaf) for i, (_, leaf) in enumerate(leaves)]
        row = (
            iteration,
            float(rate) + 0.0,
            None if self._loss is None else real(self._loss),
            None if self._smoothed is None else real(self._smoothed),
            math.sqrt(self._sumsq) if self._measured else None,
            None if clipping is None else real(clipping.scale_factor),
            self._pass_seconds,
            seconds,
            weights_hash,
        )
        rows.update(
            iterations=[row],
            updates=self._updates,
            figures=self._figures,
            histograms=self._histograms.rows,
            probes=self._probes.rows,
        )
        if self._bad:
            self._events += 1
            kind = "skipped" if self._skipped else "nonfinite"
            rows["events"] = [
                (iteration, self._events + number, kind, describe(iteration, [bad]))
                for number, bad in enumerate(self._bad)
            ]
            self._events += len(self._bad)
        return rows

    def _flush(self, writer: Optional[Writer] = None) -> None:
        writer = writer or self._writer
        if self._batch and writer is not None:
            batch, self._batch = self._batch, []
            writer.add_iterations(batch)
            self._written_at = time.perf_counter()
