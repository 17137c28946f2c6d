"""Meeting a model for the first time, in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irtools.measure.jobs import run_once
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.targets import Feeds, RunnerOptions, Target, target_text

__all__ = ["probe"]


def probe(
    target: Target,
    path: Path,
    feeds: Feeds | None = None,
    options: RunnerOptions = RunnerOptions(),
    limits: ChildLimits = ChildLimits(),
) -> dict[str, np.ndarray]:
    """Load a model file in a child process and, with feeds, run it once.

    Returns:
        The outputs by name; empty without feeds.

    Raises:
        UnsupportedError: The runtime refuses the model, or crashes on it.
        DataError: The feeds do not fit.
        LimitError: It takes too much time or memory.
    """
    outputs = run_isolated(
        run_once,
        path,
        target_text(target),
        options,
        None if feeds is None else dict(feeds),
        limits=limits,
        label=f"{target.name} on {path.name}",
    )
    return outputs or {}
