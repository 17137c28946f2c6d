"""The teacher: a checkpoint or an ONNX model, and its outputs, which are computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irtools.data import Dataset
from irtools.errors import FileError, ModelError
from irtools.frontends.students.networks.checkpoints import fingerprint, load_network
from irtools.frontends.students.training.scoring import outputs_of
from irtools.measure.cache import OutputCache
from irtools.metrics import run_dataset
from irtools.model import Model
from irtools.plugins import Progress
from irtools.sources import how_to_fetch
from irtools.targets import RunnerOptions, find_target, target_text

__all__ = ["Teacher", "cached_outputs", "open_teacher"]


@dataclass(frozen=True)
class Teacher:
    """A trained model to learn from.

    Attributes:
        source: What the caller named.
        folder: Its checkpoint, or that of the ONNX model.
        network: Its torch network; None for an ONNX model.
        sha256: Of its content, and of what runs it.
        parameters: Number of parameters.
        run: Scores [N, C] over a dataset.
    """

    source: str
    folder: Path
    network: Any | None = field(repr=False)
    sha256: str
    parameters: int
    run: Callable[[Dataset], np.ndarray] = field(repr=False)
    model: Model | None = field(default=None, repr=False)

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by number, from the ONNX model's metadata; may be empty."""
        text = "" if self.model is None else self.model.ir.metadata_props.get("id2label", "")
        return {int(k): str(v) for k, v in json.loads(text).items()} if text else {}

    @property
    def problem(self) -> str | None:
        """What its scores mean, from its config or metadata: `problem_type`."""
        if self.model is not None:
            return self.model.ir.metadata_props.get("problem_type")
        return None if self.network is None else self.network.config.problem_type


def open_teacher(source: str, target: str, threads: int | None) -> Teacher:
    """Load a teacher.

    Args:
        target: Runs an ONNX model.

    Raises:
        FileError: There is nothing at `source`.
        ModelError: It is neither checkpoint nor ONNX model, or damaged.
        UnsupportedError: The target cannot run it, or is not here.
    """
    path = Path(source)
    if path.is_file():
        return _open_onnx(path, target, threads)
    if not path.exists():
        raise FileError(
            how_to_fetch(str(source))
            or f"there is no teacher {source}: expected a checkpoint folder or .onnx file"
        )
    network = load_network(path).requires_grad_(False)
    count = sum(p.numel() for p in network.parameters())
    return Teacher(
        source, path, network, fingerprint(path), count, lambda data: outputs_of(network, data)
    )


def _open_onnx(path: Path, target: str, threads: int | None) -> Teacher:
    found = find_target(target)
    model = Model.load(path)
    names = [value.name for value in model.ir.graph.outputs]
    logits = "logits" if "logits" in names else names[0]

    def run(data: Dataset) -> np.ndarray:
        with found.runner(model, RunnerOptions(threads=threads)) as runner:
            scores = run_dataset(runner, data, batch=32)[logits or ""]
        if scores.ndim != 2 or scores.dtype.kind != "f":
            raise ModelError(
                f"teacher {path} gives {logits} of {scores.dtype}{list(scores.shape)}, expected "
                "one row of scores per sample"
            )
        return scores.astype(np.float32)

    key = f"{model.fingerprint()} {target_text(found)} {found.version()}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    return Teacher(str(path), path.parent, None, digest, model.num_parameters, run, model)


def cached_outputs(
    teacher: Teacher, data: Dataset, cache: Path | None, progress: Progress
) -> tuple[np.ndarray, str | None]:
    """Return the teacher's scores over the data: from the cache, or computed and put there.

    An entry is found by the hashes of teacher and data. One that is damaged is reported and made
    again; a cache that cannot be written is reported and otherwise ignored.

    Returns:
        Scores [N, C], and a note or None.
    """
    notes: list[str] = []
    kept = None if cache is None else OutputCache(cache, warn=notes.append)
    key = OutputCache.key(teacher=teacher.sha256, data=data.digest, torch=torch.__version__)
    if kept is not None and (found := _scores(kept.get(key), len(data))) is not None:
        return found, None
    progress.step(f"outputs of the teacher on {data.source}", 0, 1)
    scores = teacher.run(data)
    if not np.isfinite(scores).all():
        row = int(np.argwhere(~np.isfinite(scores))[0][0])
        raise ModelError(
            f"teacher {teacher.source} gives NaN or infinity for sample {row + 1} of {data.source}"
        )
    if kept is not None:
        kept.put(key, {"logits": scores})
    return scores, "; ".join(notes) or None


def _scores(entry: Any, samples: int) -> np.ndarray | None:
    scores = entry.get("logits") if isinstance(entry, dict) else None
    if not isinstance(scores, np.ndarray) or scores.ndim != 2 or len(scores) != samples:
        return None
    return scores
