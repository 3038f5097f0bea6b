"""``loggers: [mlflow]``: a run in MLflow, by default in a file store in the run directory."""

from __future__ import annotations

import os
from typing import Any, Mapping

import mlflow

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.loggers.logger import Logger

STORE, KEPT = "mlruns", "mlflow-run"


class MLflow(Logger):
    """Logs hyper-parameters and metrics; MLflow's own variables say where to.

    ``MLFLOW_TRACKING_URI`` names a server or another store, ``MLFLOW_EXPERIMENT_NAME`` the
    experiment. A run that goes on from a snapshot goes on in the same MLflow run.
    """

    def begin_run(self, iteration: int) -> None:
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri((self.folder / STORE).absolute().as_uri())
        kept = self.folder / KEPT
        known = kept.read_text().strip() if iteration and kept.exists() else None
        try:
            self._run: Any = mlflow.start_run(run_id=known, run_name=self.folder.name)
            if known is None:
                plain = self.settings.hyperparameters
                mlflow.log_params({"rule": self.settings.rule, **plain})
        except Exception as error:  # of whatever store it is
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"loggers: mlflow: {type(error).__name__}: {reason}") from error
        kept.write_text(self._run.info.run_id + "\n")

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        mlflow.log_metrics(dict(values), step=iteration)

    def end_run(self) -> None:
        mlflow.end_run()
