"""Weights & Biases."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from irtools.errors import MissingExtraError
from irtools.files import scratch_folder
from irtools.trackers.base import TrackedRun

__all__ = ["WandbTracker"]

_PROJECT = "irtools"
_SWITCH = "WANDB_ERROR_REPORTING"


class WandbTracker:
    """Writes runs to a project; offline where WANDB_MODE says so.

    Args:
        place: The project, or ENTITY/PROJECT; None: as WANDB_PROJECT says, else `irtools`.
    """

    name: ClassVar[str] = "wandb"

    def __init__(self, place: str | None) -> None:
        entity, _, project = (place or "").rpartition("/")
        self._entity = entity or None
        self._project = project or os.environ.get("WANDB_PROJECT", _PROJECT)

    def check(self) -> None:
        if find_spec("wandb") is None:
            raise MissingExtraError("tracking by Weights & Biases", "wandb")

    def log(self, run: TrackedRun) -> str:
        # It reports its own failures to its makers, unless this is set before it is imported.
        os.environ.setdefault(_SWITCH, "false")
        import wandb

        started = wandb.init(
            project=self._project,
            entity=self._entity,
            name=run.name,
            config={**run.parameters, **run.tags},
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )
        try:
            for row in run.rows:
                started.log(dict(row.metrics), step=row.step)
            _write_files(wandb, started, run)
        finally:
            started.finish()
        return str(Path(started.dir).parent) if started.offline else str(started.url)


def _write_files(wandb: Any, started: Any, run: TrackedRun) -> None:
    report = wandb.Artifact("report", type="report")
    with scratch_folder("tracker") as folder:
        for name, text in run.files.items():
            path = folder / name
            path.write_text(text, encoding="utf-8")
            report.add_file(str(path))
        started.log_artifact(report)
