"""How far a runtime may optimize a model before it breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from irtools.errors import DataError, UnsupportedError
from irtools.measure.jobs import run_once
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.measure.timing import Contender
from irtools.targets import Feeds

__all__ = ["LEVELS", "runs_at"]

Level = Literal["all", "basic", "off"]

LEVELS: tuple[Level, ...] = ("all", "basic", "off")
"""Levels of a runtime's own optimizations, most of them first."""

_LIMITS = ChildLimits(seconds=300.0)


def runs_at(contender: Contender, feeds: Feeds) -> Level | None:
    """Return the highest level at which a model runs on some feeds; None: at none.

    Args:
        contender: The model, as a file.
        feeds: One batch.
    """
    for level in LEVELS:
        options = replace(contender.options, optimizations=level)
        try:
            run_isolated(
                run_once,
                contender.model,
                contender.target,
                options,
                dict(feeds),
                limits=_LIMITS,
                label=f"{contender.target} on the model",
            )
        except (DataError, UnsupportedError):
            continue
        return level
    return None
