"""Writes down all that it takes to see a pass fail again."""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from irtools.data import Dataset, TextRows, is_ragged
from irtools.errors import (
    DataError,
    FileError,
    IrtoolsError,
    LimitError,
    ModelError,
    UnsupportedError,
    UsageError,
)
from irtools.files import json_text
from irtools.measure.machine import versions
from irtools.passmanager import Instrument, Step
from irtools.targets import target_text

__all__ = ["Recipe", "Reproducer", "may_be_bug"]

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
        calibration: Arrays (`.npz`), or rows of text (`.jsonl`) where the data came as text.
        evaluation: Likewise.
        max_length: Most tokens of a text; None: no data came as text.
    """

    pipeline: str
    target: str
    seed: int
    threads: int | None
    error: str
    model: Path
    calibration: Path | None
    evaluation: Path | None
    max_length: int | None
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
                calibration=_data_in(folder, "calibration"),
                evaluation=_data_in(folder, "evaluation"),
                max_length=document.get("max_length"),
                versions=document["versions"],
            )
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path} is no reproducer written by irtools: {error}") from error


def may_be_bug(error: Exception) -> bool:
    """Whether a failure is of the kind that reproducers are written for."""
    return not isinstance(error, _NO_BUG)


class Reproducer(Instrument):
    """When a pass fails, writes a folder from which `irc reproduce` runs it again.

    The folder holds the model before the pass with the files that lie beside it (its tokenizer
    as the pass saw it), the pass as text, up to 64 samples of the data, as text where they came so,
    seed, versions and the traceback. Failures that are the caller's to mend (wrong options, data
    that does not fit, an operator that the target lacks) leave no folder.

    Args:
        parent: Where the folder is made; None: the system's folder for temporary files.
    """

    name: ClassVar[str] = "reproducer"

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent

    def failed(self, step: Step, error: Exception) -> None:
        if not may_be_bug(error):
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
    for name in {*ctx.beside, *ctx.companions}:
        content = ctx.companion(name)
        assert content is not None
        (folder / name).write_bytes(content)
    given = {"calibration": ctx.calibration, "evaluation": ctx.evaluation}
    data = {name: found for name, found in given.items() if found is not None}
    for name, found in data.items():
        _write_data(folder / name, found.take(_SAMPLES))
    document = {
        "format": _FORMAT[0],
        "version": _FORMAT[1],
        "pipeline": step.text,
        "position": step.index,
        "stage": step.stage,
        "target": target_text(ctx.target),
        "seed": ctx.seed,
        "threads": ctx.threads,
        "max_length": max(map(_token_count, data.values()), default=0) or None,
        "error": f"{type(error).__name__}: {error}",
        "versions": dict(versions()),
    }
    (folder / "reproducer.json").write_text(json_text(document), encoding="utf-8")
    (folder / "pipeline.txt").write_text(step.text + "\n", encoding="utf-8")
    lines = "".join(traceback.format_exception(error.__cause__ or error))
    (folder / "traceback.txt").write_text(lines, encoding="utf-8", errors="replace")


def _write_data(path: Path, data: Dataset) -> None:
    """Write samples under `path` with the suffix of their kind."""
    if data.texts is not None:
        rows = "".join(json.dumps(row) + "\n" for row in _text_rows(data.texts, data.labels))
        path.with_suffix(".jsonl").write_text(rows, encoding="utf-8")
        return
    if any(is_ragged(array) for array in data.feeds.values()):
        data = data.take(1)  # Arrays of unlike shapes do not fit one file; one call does.
    arrays = {name: _plain(array) for name, array in data.feeds.items()}
    if data.labels is not None:
        arrays["labels"] = data.labels
    np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array without Python objects."""
    if is_ragged(array):
        return np.stack(list(array))
    return array.astype(str) if array.dtype.kind == "O" else array


def _text_rows(texts: TextRows, labels: np.ndarray | None) -> Iterator[dict[str, object]]:
    for index, row in enumerate(texts.rows):
        label = {} if labels is None else {"label": labels[index].tolist()}
        yield {**dict(zip(("text", "text_pair"), row, strict=False)), **label}


def _token_count(data: Dataset) -> int:
    """Return the tokens of the longest text, where some were cut off that of all; else 0."""
    if data.texts is None:
        return 0
    return max(int(array.shape[1]) for array in data.feeds.values() if array.ndim > 1)


def _data_in(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for suffix in (".npz", ".jsonl"))
    return next((path for path in paths if path.is_file()), None)
