"""Caches that hold codes of 8 or 4 bits, and the float numbers that they stand for.

    x ~ scale[g, d] * code    int8 [B, G, P, D], or uint8 [B, G, P, D / 2] with two of code + 8

Keys may be turned, x R - m in place of x (`irtools.analysis.cache_codes`).

The kernel keeps codes. What is fed to a runner and returned by it is float32, as the model before
its lowering takes it; the scales for that are noted in the file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SHARED_CACHE", "CodedCache", "coded_caches", "note_codes"]

SHARED_CACHE = "shared_cache"
"""Key in the metadata of a model whose caches may be bound to one buffer each."""

_KEY, _ROTATIONS = "coded_caches", "coded_cache_rotations"
_NIBBLE = 4


@dataclass(frozen=True, eq=False)
class CodedCache:
    """Keys or values of one layer.

    Attributes:
        name: The input.
        present: The output that continues it.
        bits: Of a code: 8 or 4.
        scale: Width of a step, float32 [G, D].
        rotation: R, float32 [D, D]; None: codes are those of x.
        offset: m, float32 [G, D].
    """

    name: str
    present: str
    bits: int
    scale: np.ndarray
    rotation: np.ndarray | None = None
    offset: np.ndarray | None = None

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
        if self.rotation is not None and self.offset is not None:
            array = array @ self.rotation - self.offset[:, None]
        most = 2 ** (self.bits - 1) - 1
        codes = np.rint(array / self.scale[:, None]).clip(-most - 1, most)
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
        if self.rotation is not None and self.offset is not None:
            found = (found + self.offset[:, None]) @ self.rotation.T
        return np.asarray(found)


def note_codes(model: ir.Model, caches: Iterable[CodedCache]) -> None:
    """Note which caches of a model hold codes, where it goes with the file."""
    document, rotations = {}, {}
    for cache in caches:
        document[cache.name] = {
            "present": cache.present,
            "bits": cache.bits,
            "shape": list(cache.scale.shape),
            "scale": _packed(cache.scale),
        }
        if cache.rotation is not None and cache.offset is not None:
            document[cache.name]["offset"] = _packed(cache.offset)
            # One matrix for all heads of a size.
            rotations[str(len(cache.rotation))] = _packed(cache.rotation)
    if document:
        model.metadata_props[_KEY] = json.dumps(document)
    if rotations:
        model.metadata_props[_ROTATIONS] = json.dumps(rotations)


def coded_caches(metadata: Mapping[str, Any]) -> dict[str, CodedCache]:
    """Return the caches that hold codes, by the name of the input, from a file's metadata."""
    found = json.loads(metadata.get(_KEY, "{}"))
    rotations = json.loads(metadata.get(_ROTATIONS, "{}"))
    return {name: _read(name, one, rotations) for name, one in found.items()}


def _read(name: str, one: Mapping[str, Any], rotations: Mapping[str, str]) -> CodedCache:
    heads, size = one["shape"]
    scale = _unpacked(one["scale"], (heads, size))
    if "offset" not in one:
        return CodedCache(name, one["present"], one["bits"], scale)
    rotation = _unpacked(rotations[str(size)], (size, size))
    offset = _unpacked(one["offset"], (heads, size))
    return CodedCache(name, one["present"], one["bits"], scale, rotation, offset)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str, shape: tuple[int, int]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape).astype(np.float32)
