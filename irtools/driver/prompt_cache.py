"""Learned prompts: caches that texts begin after, read from files and held against a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from irtools.analysis.decoder import CachedDecoder
from irtools.data import read_arrays
from irtools.errors import DataError, ModelError
from irtools.words import counted

__all__ = ["read_prompt_cache"]


def read_prompt_cache(
    path: Path, decoder: CachedDecoder, context: int | None, name: str
) -> dict[str, np.ndarray]:
    """Read a cache that texts begin after, [1, heads, P, size] by input name.

    Args:
        path: An `.npz` file.
        decoder: The model's inputs.
        context: Most tokens of a text; None: unknown.
        name: What messages call the model.

    Raises:
        FileError: The file cannot be read.
        ModelError: It is damaged, made for another model, or leaves no room for a text.
    """
    try:
        past = read_arrays(path)
    except DataError as error:
        raise ModelError(
            f"adapter {path} is not a file of arrays, or damaged: make it again by irc export "
            "--adapter"
        ) from error
    length = _length(path, past, decoder, name)
    for key, array in past.items():
        if not np.isfinite(array).all():
            raise ModelError(f"adapter {path} is damaged: {key!r} has numbers that are not finite")
    if context is not None and length >= context:
        raise ModelError(
            f"adapter {path} is a cache of {counted(length, 'token')}, and the context of {name} "
            f"is {context}: none is left for a text"
        )
    dtypes = {cache.name: cache.dtype for cache in decoder.past}
    return {key: array.astype(dtypes[key]) for key, array in past.items()}


def _length(path: Path, past: Mapping[str, np.ndarray], decoder: CachedDecoder, name: str) -> int:
    """Return the tokens of a cache that is the decoder's: its layers, heads, and one length."""
    strange = [array.dtype.name for array in past.values() if array.dtype.kind != "f"]
    if strange:
        raise ModelError(
            f"adapter {path} holds keys and values as {strange[0]}: expected floating point"
        )
    wanted = {cache.name: (1, cache.heads, cache.size) for cache in decoder.past}
    shapes = {key: (*array.shape[:2], *array.shape[3:]) for key, array in past.items()}
    lengths = {int(array.shape[2]) for array in past.values() if array.ndim > 2}
    if shapes != wanted or len(lengths) != 1:
        held = " or ".join(str(length) for length in sorted(lengths)) or "no"
        raise ModelError(
            f"adapter {path} was made for another model: it holds {_text(shapes)} (batch, heads, "
            f"size) of {held} tokens, and {name} takes {_text(wanted)} of one length; make it for "
            "this one, by irc export --adapter"
        )
    return lengths.pop()


def _text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return f"{counted(len(shapes), 'array')} of {sorted(set(shapes.values()))}"
