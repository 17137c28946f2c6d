"""Codes of a few bits that are packed into 32-bit words."""

from __future__ import annotations

import numpy as np

__all__ = ["unpack_words"]

_WORD = 32


def unpack_words(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the codes in the last axis of int32 words, the lowest bits first.

    Where a word is not a whole number of codes, they run on into the next one.

    Args:
        words: [..., W] int32.
        bits: Of a code, 1 to 8.
        count: How many codes the last axis holds, at most 32 W / bits.

    Returns:
        [..., count] uint8.
    """
    stream = np.ascontiguousarray(words).view("<u4")
    if _WORD % bits == 0:
        shifts = np.arange(0, _WORD, bits, dtype=np.uint32)
        codes = (stream[..., None] >> shifts) & np.uint32((1 << bits) - 1)
        return codes.astype(np.uint8).reshape(*words.shape[:-1], -1)[..., :count]
    single = np.unpackbits(stream.view(np.uint8), axis=-1, bitorder="little")
    grouped = single[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return np.packbits(grouped, axis=-1, bitorder="little")[..., 0]
