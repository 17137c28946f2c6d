"""Many small models, timed one after the other in one process.

For choosing among kernels, where a process for each block (`timing`) would take longer than all the
runs. Every model is loaded and timed alone, in two sweeps, the second backwards; the better median
counts, since what disturbs a machine only ever adds to a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irtools.files import scratch_folder
from irtools.measure.cpu import cpu_quota
from irtools.measure.jobs import time_several
from irtools.measure.own_machine import refuse_foreign
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.model import Model
from irtools.plugins import Progress
from irtools.targets import Feeds, RunnerOptions, Target, target_text

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Timed", "time_several_models"]

_BLOCK_SECONDS = 0.02
_GRACE = 300.0
"""Seconds beyond the bound after which a run counts as hanging."""


@dataclass(frozen=True)
class Timed:
    """A model, and the inputs of a run."""

    model: ir.Model
    feeds: Feeds


def time_several_models(
    models: Sequence[Timed],
    target: Target,
    threads: int | None,
    *,
    seconds: float,
    progress: Progress,
) -> list[float | None]:
    """Return the milliseconds of a run of each model; None of what did not run, or not in time.

    Args:
        models: The most important first.
        target: What runs them, with its optimizations.
        threads: None: the CPU quota.
        seconds: After so many no further model is begun.
        progress: Shows that it is at work.

    Raises:
        UsageError: The target is another machine.
        UnsupportedError: A run crashed.
    """
    refuse_foreign(target, "the time of products")
    progress.step("timing products", 0, len(models))
    with scratch_folder("several") as folder:
        paths = [folder / f"{number}.onnx" for number in range(len(models))]
        for path, timed in zip(paths, models, strict=True):
            Model(timed.model).save(path)
        found: Sequence[float] = run_isolated(
            time_several,
            paths,
            target_text(target),
            RunnerOptions(threads=threads or cpu_quota()),
            [dict(timed.feeds) for timed in models],
            _BLOCK_SECONDS,
            seconds,
            limits=ChildLimits(seconds=seconds + _GRACE),
            label=f"timing products on {target.name}",
        )
    return [None if math.isnan(one) else 1e3 * one for one in found]
