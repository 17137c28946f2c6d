"""Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from irtools.errors import MissingExtraError
from irtools.files import scratch_folder
from irtools.trackers.base import OpenRun, RunEnd, RunStart, TrackedRow

__all__ = ["WandbTracker"]

_PROJECT = "irtools"
_SWITCH = "WANDB_ERROR_REPORTING"
_STEP = "pass"


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

    def start(self, run: RunStart) -> OpenRun:
        # It reports its own failures to its makers, unless this is set before it is imported.
        os.environ.setdefault(_SWITCH, "false")
        return _WandbRun(self._entity, self._project, run)


class _WandbRun:
    """A run of W&B; a part of another one belongs to the group of that one's name.

    Args:
        entity: None: the user's own.
        project: Its project.
        run: What it begins with.
    """

    def __init__(self, entity: str | None, project: str, run: RunStart) -> None:
        import wandb

        self.name = run.name
        # Its own measuring of the machine would run while models are timed.
        quiet = wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True)
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=run.name,
            group=None if run.parent is None else run.parent.name,
            config={**run.parameters, **run.tags},
            settings=quiet,
            reinit="create_new",
        )
        # A row may have more figures later, which its own count of steps would not take.
        self._run.define_metric("*", step_metric=_STEP)
        offline = self._run.offline
        self.place = str(Path(self._run.dir).parent) if offline else str(self._run.url)

    def row(self, row: TrackedRow) -> None:
        self._run.log({_STEP: row.step, **row.metrics})

    def tag(self, name: str, value: str) -> None:
        self._run.config.update({name: value}, allow_val_change=True)

    def end(self, end: RunEnd) -> None:
        code = 1 if end.failure else 0
        try:
            self._run.config.update({**end.parameters, **end.tags}, allow_val_change=True)
            if end.failure:
                self._run.summary["failure"] = end.failure
            if end.files:
                self._write_files(end.files)
        finally:
            self._run.finish(exit_code=code)

    def _write_files(self, files: Mapping[str, str]) -> None:
        import wandb

        report = wandb.Artifact("report", type="report")
        with scratch_folder("tracker") as folder:
            for name, text in files.items():
                path = folder / name
                path.write_text(text, encoding="utf-8")
                report.add_file(str(path))
            self._run.log_artifact(report)
