"""One model of a sweep, in whichever process has it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irtools.driver.artifact import write_artifact
from irtools.driver.collapse import reject_collapsed
from irtools.driver.settings import Settings
from irtools.errors import IrtoolsError
from irtools.executors import unpacked
from irtools.files import files_below, scratch_folder
from irtools.passmanager import Pipeline
from irtools.report.document import Report
from irtools.search import optimize
from irtools.sweeps.entries import figures_of

__all__ = ["Made", "SweepService"]


@dataclass(frozen=True)
class Made:
    """What came of a model.

    Attributes:
        files: Bytes by name, those of the target's folder, with `report.json`.
        pipeline: The passes that made it.
        error: Why there is nothing.
        code: The error's exit code.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    pipeline: str = ""
    figures: Mapping[str, float | str | None] = field(default_factory=dict)
    error: str = ""
    code: int = 0
    worker: str = ""


class SweepService:
    """Optimizes one model after the other.

    Args:
        payload: `settings`; `passes`, text, `none`, or None to have them found; `calibration`,
            `evaluation` and `holdout` as `packed` has them; `cache`: a folder or None.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self._payload = payload

    def answer(self, source: Any) -> Made:
        """Make one model; what it fails by is its answer, for the others go on.

        Args:
            source: As `packed` has it.
        """
        worker = socket.gethostname()
        try:
            with scratch_folder("sweep") as folder:
                return self._make(source, folder, worker)
        except IrtoolsError as error:
            text = str(error).partition("\n")[0]
            return Made(error=text, code=error.exit_code, worker=worker)

    def _make(self, source: Any, folder: Path, worker: str) -> Made:
        given = self._payload
        settings: Settings = given["settings"]
        passes = given["passes"]
        path = unpacked(source, folder / "source")
        data = {
            name: unpacked(given.get(name), folder / name)
            for name in ("calibration", "evaluation", "holdout")
        }
        result = optimize(
            path, Pipeline() if passes == "none" else passes, settings, **data, cache=given["cache"]
        )
        if settings.check:
            reject_collapsed(result)
        place = folder / "made"
        report, _ = write_artifact(result, f"{place}/", source=path)
        files = {name: (place / name).read_bytes() for name in files_below(place)}
        return Made(files, _pipeline(report), figures_of(report), worker=worker)

    def close(self) -> None:
        """Nothing is held between models."""


def _pipeline(report: Report) -> str:
    return report.pipeline or "none"
