"""Runs only the first passes of a pipeline, to find the one that breaks a model."""

from __future__ import annotations

from typing import ClassVar, TextIO

from irtools.passmanager import Instrument, Step

__all__ = ["BisectLimit"]


class BisectLimit(Instrument):
    """Runs the first `limit` passes and skips the rest, with one numbered line for each.

    Args:
        limit: Number of passes to run; -1 runs all and only prints the lines.
        stream: Where the lines go.
    """

    name: ClassVar[str] = "bisect-limit"

    def __init__(self, limit: int, stream: TextIO) -> None:
        self._limit = limit
        self._stream = stream

    def should_run(self, step: Step) -> bool:
        runs = self._limit < 0 or step.index <= self._limit
        word = "running" if runs else "NOT running"
        self._stream.write(f"BISECT: {word} pass ({step.index}) {step.text}\n")
        return runs
