"""bitsandbytes in 4 bits: NF4 and FP4, with an absmax for each block that may be quantized too.

    w = level[q] a[b],   a[b] = level8[c[b]] a2[b / 256] + mean  where the absmax is nested

Levels are in the file. Each product and sum is rounded to float32 once, in this order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irtools.checkpoints.methods.base import Layout
from irtools.checkpoints.parts import Parts

__all__ = ["Nf4"]

_ABSMAX, _LEVELS = "weight.absmax", "weight.quant_map"
_OUTER_ABSMAX, _OUTER_LEVELS = "weight.nested_absmax", "weight.nested_quant_map"
_STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")


@dataclass(frozen=True)
class Nf4:
    """Codes of 4 bits along the flattened weight, the first of two in the upper half of a byte."""

    main: ClassVar[str] = _ABSMAX
    others: ClassVar[tuple[str, ...]] = (
        *("weight", _LEVELS, _OUTER_ABSMAX, _OUTER_LEVELS),
        *_STATES,
    )
    unread: ClassVar[tuple[str, ...]] = ()

    def weight(self, parts: Parts) -> np.ndarray:
        state = _state(parts)
        shape, block = _shape(parts, state), _count(parts, state, "blocksize")
        total = math.prod(shape)
        levels = _table(parts, _LEVELS, 16)
        absmax = _absmax(parts, state)
        packed = parts.read("weight", ("U8",)).reshape(-1)
        if packed.size != -(-total // 2) or absmax.size != -(-total // block):
            raise parts.error(
                f"a weight {list(shape)} in blocks of {block} has {-(-total // 2)} bytes and "
                f"{-(-total // block)} scales, and there are {packed.size} and {absmax.size}"
            )
        codes = np.stack((packed >> 4, packed & 15), axis=-1).reshape(-1)[:total]
        found: np.ndarray = levels[codes] * np.repeat(absmax, min(block, total))[:total]
        return found.reshape(shape)

    def layout(self, parts: Parts) -> Layout:
        return Layout.OTHER


def _absmax(parts: Parts, state: Mapping[str, Any]) -> np.ndarray:
    if not parts.has(_OUTER_ABSMAX):
        return parts.read(_ABSMAX, ("F32",), 1)
    codes = parts.read(_ABSMAX, ("U8",), 1)
    outer = parts.read(_OUTER_ABSMAX, ("F32",), 1)
    block = _count(parts, state, "nested_blocksize")
    if outer.size != -(-codes.size // block):
        raise parts.error(
            f"{codes.size} scales in blocks of {block} have {-(-codes.size // block)} scales of "
            f"their own, and there are {outer.size}"
        )
    offset = state.get("nested_offset")
    if not isinstance(offset, float):
        raise parts.error(f"its quant_state gives no number as nested_offset: {offset!r}")
    repeated = np.repeat(outer, min(block, codes.size))[: codes.size]
    scaled = _table(parts, _OUTER_LEVELS, 256)[codes] * repeated
    return np.asarray(scaled + np.float32(offset), np.float32)


def _state(parts: Parts) -> Mapping[str, Any]:
    name = next((s for s in _STATES if parts.has(s)), _STATES[0])
    raw = parts.read(name, ("U8",), 1)
    try:
        found = json.loads(raw.tobytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise parts.error(f"{name} is not a table in JSON")
    return found


def _shape(parts: Parts, state: Mapping[str, Any]) -> tuple[int, ...]:
    found = state.get("shape")
    if not isinstance(found, list) or not all(type(n) is int and 0 < n < 1 << 31 for n in found):
        raise parts.error(f"its quant_state gives no shape: {found!r}")
    return tuple(found)


def _count(parts: Parts, state: Mapping[str, Any], key: str) -> int:
    found = state.get(key)
    if type(found) is not int or not 0 < found < 1 << 31:
        raise parts.error(f"its quant_state gives no {key}: {found!r}")
    return found


def _table(parts: Parts, suffix: str, size: int) -> np.ndarray:
    found = parts.read(suffix, ("F32",), 1)
    if found.shape != (size,):
        raise parts.error(f"{suffix} has {list(found.shape)} levels, expected {size}")
    return found
