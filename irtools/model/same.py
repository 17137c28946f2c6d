"""Whether bytes, tensors and models are the same, without hashing what can be compared."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.model.digest import release_tensor, tensor_bytes
from irtools.model.printer import print_structure

__all__ = ["is_same_model", "same_bytes"]

_PIECE = 1 << 22
"""Bytes that are compared at a time: both pieces stay in the cache."""


def same_bytes(one: bytes | memoryview, other: bytes | memoryview) -> bool:
    """Whether two stretches of memory hold the same, several times as fast as hashing both."""
    if len(one) != len(other):
        return False
    first, second = np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)
    return all(
        np.array_equal(first[start : start + _PIECE], second[start : start + _PIECE])
        for start in range(0, len(first), _PIECE)
    )


def is_same_model(one: ir.Model, other: ir.Model) -> bool:
    """Whether two models have the same structure and weights; paths and file layout do not matter.

    They are exactly if their fingerprints are equal.
    """
    (text, tensors), (other_text, others) = print_structure(one), print_structure(other)
    return text == other_text and all(map(_is_same_tensor, tensors, others))


def _is_same_tensor(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    """Whether two tensors of one type and shape hold the same."""
    same = one is other or same_bytes(tensor_bytes(one), tensor_bytes(other))
    release_tensor(one)
    release_tensor(other)
    return same
