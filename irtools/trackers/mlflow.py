"""MLflow: a store in a database, in a folder, or on a server."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from importlib.util import find_spec
from typing import Any, ClassVar

from irtools.errors import MissingExtraError
from irtools.files import scratch_folder
from irtools.trackers.base import TrackedRun

__all__ = ["MlflowTracker"]

_EXPERIMENT = "irtools"
_SWITCH = "MLFLOW_DISABLE_TELEMETRY"
_ALLOWED = re.compile(r"[^\w\-. :/]")
_LONGEST = {"parameter": 6000, "tag": 5000}
_AT_A_TIME = 100


class MlflowTracker:
    """Writes runs to an MLflow store.

    Args:
        place: Tracking URI; None: as MLFLOW_TRACKING_URI says, else MLflow's default. The
            experiment is that of MLFLOW_EXPERIMENT_NAME, else `irtools`.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(self, place: str | None) -> None:
        self._place = place

    def check(self) -> None:
        if find_spec("mlflow") is None:
            raise MissingExtraError("tracking by MLflow", "mlflow")

    def log(self, run: TrackedRun) -> str:
        # It reports every run to its makers, unless this is set before it is imported.
        os.environ.setdefault(_SWITCH, "true")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About its own libraries.
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)
            client = MlflowClient(tracking_uri=self._place)
            return _write(client, run)


def _write(client: Any, run: TrackedRun) -> str:
    from mlflow.entities import Metric, Param, RunTag

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    known = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if known is None else known.experiment_id
    made = client.create_run(number, run_name=run.name)
    key, now = made.info.run_id, int(1000 * time.time())
    metrics = [
        Metric(_named(name), value, now, row.step)
        for row in run.rows
        for name, value in row.metrics.items()
    ]
    parameters = [
        Param(_named(name), value[: _LONGEST["parameter"]])
        for name, value in run.parameters.items()
    ]
    tags = [RunTag(_named(name), value[: _LONGEST["tag"]]) for name, value in run.tags.items()]
    status = "FAILED"
    try:
        client.log_batch(key, tags=tags)
        for start in range(0, len(parameters), _AT_A_TIME):
            client.log_batch(key, params=parameters[start : start + _AT_A_TIME])
        for start in range(0, len(metrics), _AT_A_TIME):
            client.log_batch(key, metrics=metrics[start : start + _AT_A_TIME])
        _write_files(client, key, run)
        status = "FINISHED"
    finally:
        client.set_terminated(key, status)
    return f"experiment {experiment}, run {key}"


def _write_files(client: Any, key: str, run: TrackedRun) -> None:
    with scratch_folder("tracker") as folder:
        for name, text in run.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        client.log_artifacts(key, str(folder))


def _named(name: str) -> str:
    """Return a name of letters that MLflow takes."""
    return _ALLOWED.sub("-", name)
