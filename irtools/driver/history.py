"""What was done to a model, in the metadata of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from irtools.model import Model
from irtools.version import __version__

__all__ = ["history_of", "with_history"]

_KEY = "irtools.history"


def history_of(metadata: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
    """Return the runs that made a model, the first one first; empty where nothing says so.

    Each has `irtools` (version), `source` (SHA-256 of the model before it), `pipeline`, `target`.

    Args:
        metadata: Of the model, which anybody may have written.
    """
    try:
        found: Any = json.loads(metadata.get(_KEY, "[]"))
    except (ValueError, RecursionError):
        return ()
    runs = found if isinstance(found, list) else []
    return tuple(
        {str(key): str(value) for key, value in run.items()}
        for run in runs
        if isinstance(run, dict)
    )


def with_history(
    models: Sequence[Model], original: Model, pipeline: str, target: str
) -> tuple[Model, ...]:
    """Return copies whose metadata says how they were made: no time and no path.

    Args:
        models: Forms of one result.
        original: The model before the first pass; what made that one is kept.
        pipeline: Text of all passes; where it is empty, the models are returned as they are.
        target: What for, as target text.
    """
    if not pipeline:
        return tuple(models)
    run = {
        "irtools": __version__,
        "source": original.fingerprint(),
        "pipeline": pipeline,
        "target": target,
    }
    runs = [*history_of(original.ir.metadata_props), run]
    copies = tuple(model.clone() for model in models)
    for copy in copies:
        copy.ir.metadata_props[_KEY] = json.dumps(runs)
    return copies
