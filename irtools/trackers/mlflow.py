"""MLflow: a store in a database, in a folder, or on a server."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar

from irtools.errors import MissingExtraError
from irtools.files import scratch_folder
from irtools.trackers.base import OpenRun, RunEnd, RunStart, TrackedRow

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

    def start(self, run: RunStart) -> OpenRun:
        # It reports every run to its makers, unless this is set before it is imported.
        os.environ.setdefault(_SWITCH, "true")
        with _quiet():
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)
            return _MlflowRun(MlflowClient(tracking_uri=self._place), run)


class _MlflowRun:
    """A run of MLflow.

    Args:
        client: Of the store.
        run: What it begins with.
    """

    def __init__(self, client: Any, run: RunStart) -> None:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        known = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if known is None else known.experiment_id
        # What MLflow's own nested runs have.
        nested = {} if run.parent is None else {"mlflow.parentRunId": run.parent.key}
        self.key = client.create_run(number, run_name=run.name, tags=nested).info.run_id
        self.place = f"experiment {experiment}, run {self.key}"
        self._client = client
        self._log(parameters=run.parameters, tags=run.tags)

    def row(self, row: TrackedRow) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._batches(
            "metrics", [Metric(_named(n), v, now, row.step) for n, v in row.metrics.items()]
        )
        self._log(tags={f"step.{row.step}": row.text})

    def tag(self, name: str, value: str) -> None:
        self._log(tags={name: value})

    def end(self, end: RunEnd) -> None:
        status = "FAILED"
        try:
            self._log(parameters=end.parameters, tags=end.tags)
            if end.failure:
                self._log(tags={"failure": end.failure})
            if end.files:
                self._write_files(end.files)
            status = "FAILED" if end.failure else "FINISHED"
        finally:
            with _quiet():
                self._client.set_terminated(self.key, status)

    def _log(
        self, *, parameters: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        from mlflow.entities import Param, RunTag

        longest = _LONGEST["parameter"]
        self._batches(
            "params", [Param(_named(n), v[:longest]) for n, v in (parameters or {}).items()]
        )
        longest = _LONGEST["tag"]
        self._batches("tags", [RunTag(_named(n), v[:longest]) for n, v in (tags or {}).items()])

    def _batches(self, kind: str, entries: Sequence[Any]) -> None:
        with _quiet():
            for start in range(0, len(entries), _AT_A_TIME):
                some = entries[start : start + _AT_A_TIME]
                self._client.log_batch(self.key, **{kind: some})

    def _write_files(self, files: Mapping[str, str]) -> None:
        with scratch_folder("tracker") as folder, _quiet():
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            self._client.log_artifacts(self.key, str(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what it warns of about its own libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _named(name: str) -> str:
    """Return a name of letters that MLflow takes."""
    return _ALLOWED.sub("-", name)
