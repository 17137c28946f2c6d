"""Caches that hold codes of 8 or 4 bits, and the float numbers that they stand for.

    x ~ scale[g, d] * code    int8 [B, G, P, D], or uint8 [B, G, P, D / 2] with two of code + 8

Codes may be those of keys or values that were turned (`irtools.analysis.cache_codes`).

The kernel keeps codes. What is fed to a runner and returned by it is float32, as the model before
its lowering takes it; the scales for that are noted in the file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.analysis.cache_turn import CacheTurn, nearest_codes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SHARED_CACHE", "CodedCache", "coded_caches", "note_codes"]

SHARED_CACHE = "shared_cache"
"""Key in the metadata of a model whose caches may be bound to one buffer each."""

_KEY = "coded_caches"
_TURN = ("offset", "forth", "back", "coarse")
_NIBBLE = 4


@dataclass(frozen=True, eq=False)
class CodedCache:
    """Keys or values of one layer.

    Attributes:
        name: The input.
        present: The output that continues it.
        bits: Of a code: 8 or 4.
        scale: Width of a step, float32 [G, D].
        turn: How x was turned; None: codes are those of x.
    """

    name: str
    present: str
    bits: int
    scale: np.ndarray
    turn: CacheTurn | None = None

    @property
    def dtype(self) -> np.dtype:
        """Element type of the cache."""
        return np.dtype(np.uint8 if self.bits == _NIBBLE else np.int8)

    @property
    def width(self) -> int:
        """Size of its last axis."""
        return int(self.scale.shape[1]) * self.bits // 8

    def encode(self, array: np.ndarray) -> np.ndarray:
        """Return the codes of float keys or values, [B, G, P, D]."""
        if self.turn is not None:
            array = self.turn.turned(array)
        codes = nearest_codes(array, self.scale[:, None], self.bits)
        if self.bits != _NIBBLE:
            return np.asarray(codes, np.int8)
        shifted = np.asarray(codes + 8, np.uint8)
        return np.asarray(shifted[..., 0::2] | (shifted[..., 1::2] << _NIBBLE))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the float keys or values of codes, [B, G, P, D]."""
        steps = codes
        if self.bits == _NIBBLE:
            pairs = np.stack([codes & 15, codes >> _NIBBLE], axis=-1)
            steps = pairs.reshape(*codes.shape[:-1], -1).astype(np.float32) - 8
        found = steps * self.scale[:, None]
        return np.asarray(found if self.turn is None else self.turn.restored(found))


def note_codes(model: ir.Model, caches: Iterable[CodedCache]) -> None:
    """Note which caches of a model hold codes, where it goes with the file."""
    document = {}
    for cache in caches:
        document[cache.name] = {
            "present": cache.present,
            "bits": cache.bits,
            "scale": _packed(cache.scale),
        }
        if cache.turn is not None:
            arrays = {name: getattr(cache.turn, name) for name in _TURN}
            turn = {name: _packed(array) for name, array in arrays.items() if array is not None}
            document[cache.name]["turn"] = turn
    if document:
        model.metadata_props[_KEY] = json.dumps(document)


def coded_caches(metadata: Mapping[str, Any]) -> dict[str, CodedCache]:
    """Return the caches that hold codes, by the name of the input, from a file's metadata."""
    found = json.loads(metadata.get(_KEY, "{}"))
    return {name: _read(name, one) for name, one in found.items()}


def _read(name: str, one: Mapping[str, Any]) -> CodedCache:
    turn = None
    if "turn" in one:
        turn = CacheTurn(**{name: _unpacked(array) for name, array in one["turn"].items()})
    return CodedCache(name, one["present"], one["bits"], _unpacked(one["scale"]), turn)


def _packed(array: np.ndarray) -> list[Any]:
    """Return type, shape and content, in half as many bytes where that loses nothing."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    kind = "<f2" if np.array_equal(half, array) else "<f4"
    content = base64.b64encode(array.astype(kind).tobytes()).decode("ascii")
    return [kind, list(array.shape), content]


def _unpacked(packed: Sequence[Any]) -> np.ndarray:
    kind, shape, content = packed
    return np.frombuffer(base64.b64decode(content), kind).reshape(shape).astype(np.float32)
