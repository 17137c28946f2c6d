"""Feeds of the sizes that a benchmark asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irtools.data.signature import InputSpec, required_inputs
from irtools.data.synthetic import SyntheticSettings, synthesize
from irtools.errors import DataError
from irtools.measure.base import BenchSettings
from irtools.target import Feeds

if TYPE_CHECKING:
    from irtools.data import Dataset
    from irtools.model import Model

__all__ = ["bench_feeds", "branches", "sample_feeds"]

_SAMPLES = 32


def bench_feeds(
    model: Model, settings: BenchSettings, data: Dataset | None = None, seed: int = 0
) -> dict[str, Feeds]:
    """Return feeds for every batch and sequence size of `settings`, by label.

    Values are drawn from the signature, at full length: padding would time less than the shape
    says. Sizes that the model fixes stay as they are, so two settings may give one shape. Where
    nothing can be drawn, real samples are taken, at the length that they have.

    Args:
        model: The model.
        settings: The sizes.
        data: Real samples, for inputs that cannot be invented.
        seed: Seed of the drawn values.

    Raises:
        DataError: Nothing can be drawn and there is no data.
    """
    specs = required_inputs(model)
    found: dict[str, Feeds] = {}
    for batch in settings.batch:
        for sequence in settings.sequence:
            wanted = SyntheticSettings(
                samples=batch, sequence=sequence, seed=seed, vary_lengths=False
            )
            feeds = _draw(model, wanted, data)
            found.setdefault(_label(specs, feeds), feeds)
    return found


def branches(model: Model) -> bool:
    """Whether a model may need more time for one sample than for another."""
    from irtools.model import subgraphs

    return any(True for node in model.ir.graph for _ in subgraphs(node))


def sample_feeds(data: Dataset, settings: BenchSettings) -> dict[str, list[Feeds]]:
    """Return real samples to time in turns, for models whose work depends on the sample.

    Args:
        data: Where they come from; some are taken, evenly spread over it.
        settings: The batch sizes.
    """
    found: dict[str, list[Feeds]] = {}
    for batch in settings.batch:
        turns: list[Feeds] = list(data.spread(_SAMPLES * batch).batches(batch))
        found[f"batch={batch} {len(turns)} samples in turns"] = turns
    return found


def _draw(model: Model, wanted: SyntheticSettings, data: Dataset | None) -> Feeds:
    try:
        return synthesize(model, wanted).feeds
    except DataError:
        if data is None or not len(data):
            raise
        rows = np.arange(wanted.samples) % len(data)
        return data.feeds_of(rows)


def _label(specs: tuple[InputSpec, ...], feeds: Feeds) -> str:
    first = feeds[specs[0].name]
    batch = f"batch={len(first)}" if first.ndim else ""
    lengths = [
        feeds[spec.name].shape[1]
        for spec in specs
        if spec.dtype.kind in "iu" and feeds[spec.name].ndim == 2
    ]
    return " ".join([batch, *(f"sequence={length}" for length in lengths[:1])]).strip()
