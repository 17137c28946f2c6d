"""Samples for a decoder with a key-value cache: whole texts, read with an empty cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.decoder import find_decoder
from irtools.data.base import Dataset, is_ragged, objects

__all__ = ["with_empty_cache"]


def with_empty_cache(dataset: Dataset, model: ir.Model) -> Dataset:
    """Return the samples with the inputs that follow from their tokens, where they lack them.

    These are the keys and values of a cache without tokens, [N, heads, 0, head size], and the
    positions, counted by the mask as Transformers does. Data for other models stays as it is, and
    so does a cache of which there is a part: it is another model's.
    """
    decoder = find_decoder(model)
    if decoder is None or decoder.ids not in dataset.feeds:
        return dataset
    if is_ragged(dataset.feeds[decoder.ids]):
        return replace(dataset, feeds=_whole_calls(dataset, model))
    made = decoder.empty(len(dataset))
    if made.keys() & dataset.feeds.keys():
        made = {}
    mask = dataset.feeds.get(decoder.mask or "")
    if decoder.positions is not None and decoder.positions not in dataset.feeds:
        ids = dataset.feeds[decoder.ids]
        read = np.ones(ids.shape, np.int64) if mask is None else mask.astype(np.int64)
        places = np.maximum(read.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        made[decoder.positions] = places.astype(decoder.dtypes[decoder.positions])
    return replace(dataset, feeds={**dataset.feeds, **made})


def _whole_calls(dataset: Dataset, model: ir.Model) -> dict[str, np.ndarray]:
    """Return the feeds where each sample is a call, with a cache for each of its rows."""
    calls = [
        with_empty_cache(
            Dataset({name: array[row] for name, array in dataset.feeds.items()}), model
        )
        for row in range(len(dataset))
    ]
    return {name: objects([call.feeds[name] for call in calls]) for name in calls[0].feeds}
