"""Writes down all that it takes to see a pass fail again."""

from __future__ import annotations

import json
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from irtools.data import Dataset
from irtools.errors import (
    DataError,
    FileError,
    IrtoolsError,
    LimitError,
    ModelError,
    UnsupportedError,
    UsageError,
)
from irtools.measure import target_text
from irtools.passmanager.step import Instrument, Step
from irtools.report.environment import versions

__all__ = ["Recipe", "Reproducer"]

_NO_BUG = (UsageError, UnsupportedError, DataError, ModelError, FileError, LimitError)
_SAMPLES = 64
_FORMAT = ("irtools-reproducer", 1)


@dataclass(frozen=True)
class Recipe:
    """What `irc reproduce` reads from a reproducer folder.

    Attributes:
        pipeline: The one pass that failed, as pipeline text.
        target: Name and options.
        error: What it said.
    """

    pipeline: str
    target: str
    seed: int
    threads: int | None
    error: str
    model: Path
    calibration: Path | None
    evaluation: Path | None
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Recipe:
        """Read a folder that `Reproducer` wrote.

        Raises:
            FileError: There is no such folder, or it is not one.
        """
        path = folder / "reproducer.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if (document["format"], document["version"]) != _FORMAT:
                raise FileError(f"{path} is no reproducer of version {_FORMAT[1]}")
            return cls(
                pipeline=document["pipeline"],
                target=document["target"],
                seed=document["seed"],
                threads=document["threads"],
                error=document["error"],
                model=folder / "model.onnx",
                calibration=_existing(folder / "calibration.npz"),
                evaluation=_existing(folder / "evaluation.npz"),
                versions=document["versions"],
            )
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path} is no reproducer written by irtools: {error}") from error


class Reproducer(Instrument):
    """When a pass fails, writes a folder from which `irc reproduce` runs it again.

    The folder holds the model before the pass, the pass as text, up to 64 samples of the data,
    seed, versions and the traceback. Failures that are the caller's to mend (wrong options, data
    that does not fit, an operator that the target lacks) leave no folder.

    Args:
        parent: Where the folder is made; None: the system's folder for temporary files.
    """

    name: ClassVar[str] = "reproducer"

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent

    def failed(self, step: Step, error: Exception) -> None:
        if isinstance(error, _NO_BUG):
            return
        try:
            folder = Path(tempfile.mkdtemp(prefix="irc-reproducer-", dir=self._parent))
            _write(folder, step, error)
        except (OSError, IrtoolsError) as trouble:
            error.add_note(f"no reproducer could be written: {trouble}")
            return
        error.add_note(f"to see it again: irc reproduce {folder}")


def _write(folder: Path, step: Step, error: Exception) -> None:
    step.before.save(folder / "model.onnx")
    ctx = step.ctx
    for name, data in (("calibration", ctx.calibration), ("evaluation", ctx.evaluation)):
        if data is not None:
            _write_data(folder / f"{name}.npz", data.take(_SAMPLES))
    document = {
        "format": _FORMAT[0],
        "version": _FORMAT[1],
        "pipeline": step.text,
        "position": step.index,
        "stage": step.stage,
        "target": target_text(ctx.target),
        "seed": ctx.seed,
        "threads": ctx.threads,
        "error": f"{type(error).__name__}: {error}",
        "versions": dict(versions()),
    }
    text = json.dumps(document, indent=1) + "\n"
    (folder / "reproducer.json").write_text(text, encoding="utf-8")
    (folder / "pipeline.txt").write_text(step.text + "\n", encoding="utf-8")
    lines = "".join(traceback.format_exception(error.__cause__ or error))
    (folder / "traceback.txt").write_text(lines, encoding="utf-8", errors="replace")


def _write_data(path: Path, data: Dataset) -> None:
    arrays = dict(data.feeds)
    if data.labels is not None:
        arrays["labels"] = data.labels
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
