"""Calibration samples for tools that run the model by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.errors import DataError
from irtools.passmanager import PassContext
from irtools.words import counted

__all__ = ["FeedReader", "Feeds", "Samples", "calibration_samples"]

Feeds: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """What a tool is given: feeds of one call each, and notes for the report."""

    feeds: tuple[Feeds, ...]
    notes: tuple[str, ...] = ()


def calibration_samples(
    model: ir.Model, ctx: PassContext, tool: str, most: int | None = None
) -> Samples:
    """Return the calibration data, one sample a call, without any padding.

    Tools know no padding: they would count it like any other value. So padding is cut off, and
    where the model has a fixed length samples that hold some are left out.

    Args:
        model: What the data is fed to.
        ctx: For the data; drawn where none was given.
        tool: Its name, for messages.
        most: Samples to take, evenly spread; None: all.

    Raises:
        DataError: All samples hold padding that cannot be cut off.
    """
    service = ctx.statistics(model)
    batches = list(service.batches(1))
    kept = [batch.feeds for batch in batches if batch.keep is None]
    notes = []
    if service.synthetic:
        notes.append("ranges come from synthetic data: give calibration data to trust them")
    left_out = len(batches) - len(kept)
    if not kept:
        raise DataError(
            f"all {counted(left_out, 'sample')} hold padding that cannot be cut off, and {tool} "
            "would count it: export the model with a sequence length that is open, or give samples "
            "of the full length"
        )
    if left_out:
        notes.append(
            f"{counted(left_out, 'sample')} left out: they hold padding that cannot be cut off, "
            f"and {tool} would count it"
        )
    if most is not None and most < len(kept):
        kept = [kept[number * len(kept) // most] for number in range(most)]
    return Samples(tuple(kept), tuple(notes))


class FeedReader:
    """Samples as the calibrators of ONNX Runtime take them."""

    def __init__(self, samples: tuple[Feeds, ...]) -> None:
        self._samples = samples
        self._rest: Iterator[Feeds] = iter(samples)

    def get_next(self) -> Feeds | None:
        """Return the next sample, or None at the end."""
        return next(self._rest, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these samples; part of the protocol."""
        self._rest = iter(self._samples[start_index:end_index])

    def __len__(self) -> int:
        return len(self._samples)
