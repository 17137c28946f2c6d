"""From a request to a module with quantized weights, and what that lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irtools.data import (
    DataSettings,
    SyntheticSettings,
    cut_columns,
    find_columns,
    load_dataset,
    padding_mask,
    signature_of,
)
from irtools.errors import DataError
from irtools.sources import QuantizerRequest, find_quantizer
from irtools.words import counted

__all__ = ["quantized_module"]

_COMPARED = 8
"""Samples on which the loss is measured."""

Sample = Mapping[str, Any]


def quantized_module(
    module: Any, folder: Path, request: QuantizerRequest
) -> tuple[Any, tuple[str, ...]]:
    """Return a network of transformers with the weights that a quantizer chose, and notes.

    Weights lie on grids of blocks, as numbers of float32: `int4` finds and keeps them.

    Args:
        module: In evaluation mode; changed in place.
        folder: Its checkpoint, whose tokenizer reads texts.

    Raises:
        DataError: The method needs data and none is given, or it does not fit the network.
        MissingExtraError: The tool is not installed.
        UnsupportedError: The tool fails, or finds nothing to quantize.
    """
    quantizer = find_quantizer(request.tool)()
    if request.method in quantizer.needs_data and request.data is None:
        raise DataError(
            f"{request.tool}:{request.method} chooses weights by data: give --calibrate"
        )
    samples = _samples(module, folder, request)
    with torch.inference_mode():
        before = [_first_output(module, sample) for sample in samples[:_COMPARED]]
    made, notes = quantizer.quantize(module, samples, request)
    made = made.eval()
    with torch.inference_mode():
        after = [_first_output(made, sample) for sample in samples[:_COMPARED]]
    return made, (*notes, *_told(request, before, after))


def _samples(module: Any, folder: Path, request: QuantizerRequest) -> list[Sample]:
    """Return inputs of one call each, without padding; none where no data is given."""
    if request.data is None:
        return []
    settings = DataSettings(
        samples=request.samples,
        max_length=request.max_length,
        tokenizer=request.tokenizer or _tokenizer_of(folder),
        synthetic=SyntheticSettings(samples=request.samples),
    )
    data = load_dataset(request.data, signature_of(module, folder), settings)
    return [_without_padding(feeds) for feeds in data.batches(1)]


def _tokenizer_of(folder: Path) -> Path | None:
    return folder if (folder / "tokenizer.json").is_file() else None


def _without_padding(feeds: Mapping[str, np.ndarray]) -> Sample:
    mask = padding_mask(feeds)
    if mask is not None and mask.any():
        length = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
        feeds = {**feeds, **cut_columns(feeds, find_columns(feeds, {}), length)}
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in feeds.items()}


def _first_output(module: Any, sample: Sample) -> np.ndarray:
    found = module(**sample)
    values = found.to_tuple() if hasattr(found, "to_tuple") else found
    first = next(value for value in values if isinstance(value, torch.Tensor))
    return np.asarray(first.float().numpy())


def _told(
    request: QuantizerRequest, before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> tuple[str, ...]:
    if not before:
        return ()
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in before)
    noise = sum(
        float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(before, after, strict=True)
    )
    kept = 10 * np.log10(signal / noise) if noise > 0 else np.inf
    samples = counted(len(before), "calibration sample")
    return (f"{request.tool}:{request.method} keeps {kept:.1f} dB of the outputs on {samples}",)
